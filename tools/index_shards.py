"""The older name of `imgcap index`: `python tools/index_shards.py ...`."""

from imgcap.commands.index import main

if __name__ == "__main__":
    main()
