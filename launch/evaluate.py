"""The older name of `imgcap evaluate`: `python launch/evaluate.py ...`."""

from imgcap.commands.evaluate import main

if __name__ == "__main__":
    main()
