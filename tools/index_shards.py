"""The older name of `imgcap index`: `python tools/index_shards.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("index")
