"""The older name of `imgcap caption ... --out FILE`: `python launch/caption.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("caption", "main_with_out")
