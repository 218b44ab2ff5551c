"""The older name of `imgcap cache-features`: `python tools/cache_features.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("cache-features")
