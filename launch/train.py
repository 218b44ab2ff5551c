"""The older name of `imgcap train`: `python launch/train.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("train")
