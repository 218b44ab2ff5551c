"""The older name of `imgcap serve`: `python tools/demo.py ...`."""

from imgcap.commands.serve import main

if __name__ == "__main__":
    main()
