"""The older name of `imgcap compare`: `python tools/compare.py ...`."""

from imgcap.commands.compare import main

if __name__ == "__main__":
    main()
