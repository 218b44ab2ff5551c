"""The older name of `imgcap serve`: `python tools/demo.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("serve")
