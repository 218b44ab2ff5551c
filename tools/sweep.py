"""The older name of `imgcap sweep`: `python tools/sweep.py ...`."""

from imgcap.commands.sweep import main

if __name__ == "__main__":
    main()
