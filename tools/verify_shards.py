"""The older name of `imgcap verify`: `python tools/verify_shards.py ...`."""

from imgcap.commands.verify import main

if __name__ == "__main__":
    main()
