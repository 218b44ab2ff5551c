"""The older name of `imgcap score`: `python tools/score.py ...`."""

from imgcap.commands.score import main

if __name__ == "__main__":
    main()
