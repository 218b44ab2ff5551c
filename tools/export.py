"""The older name of `imgcap export`: `python tools/export.py ...`."""

from imgcap.commands.export import main

if __name__ == "__main__":
    main()
