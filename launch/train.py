"""The older name of `imgcap train`: `python launch/train.py ...`."""

from imgcap.commands.train import main

if __name__ == "__main__":
    main()
