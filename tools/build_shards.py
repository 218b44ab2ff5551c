"""The older name of `imgcap build`: `python tools/build_shards.py ...`."""

from imgcap.commands.build import main

if __name__ == "__main__":
    main()
