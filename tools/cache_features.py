"""The older name of `imgcap cache-features`: `python tools/cache_features.py ...`."""

from imgcap.commands.cache_features import main

if __name__ == "__main__":
    main()
