"""The older name of `imgcap download`: `python tools/download.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("download")
