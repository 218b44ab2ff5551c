"""The older name of `imgcap sweep`: `python tools/sweep.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("sweep")
