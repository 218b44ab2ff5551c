"""The older name of `imgcap inspect`: `python tools/inspect_shards.py ...`."""

from imgcap.commands.inspect import main

if __name__ == "__main__":
    main()
