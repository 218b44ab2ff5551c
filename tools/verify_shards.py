"""The older name of `imgcap verify`: `python tools/verify_shards.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("verify")
