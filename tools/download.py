"""The older name of `imgcap download`: `python tools/download.py ...`."""

from imgcap.commands.download import main

if __name__ == "__main__":
    main()
