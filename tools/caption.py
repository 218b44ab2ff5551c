"""The older name of `imgcap caption`: `python tools/caption.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("caption")
