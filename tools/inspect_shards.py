"""The older name of `imgcap inspect`: `python tools/inspect_shards.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("inspect")
