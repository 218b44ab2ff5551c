"""The older name of `imgcap build`: `python tools/build_shards.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("build")
