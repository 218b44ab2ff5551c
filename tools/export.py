"""The older name of `imgcap export`: `python tools/export.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("export")
