"""The older name of `imgcap caption`: `python tools/caption.py ...`."""

from imgcap.commands.caption import main

if __name__ == "__main__":
    main()
