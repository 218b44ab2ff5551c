"""The older name of `imgcap compare`: `python tools/compare.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("compare")
