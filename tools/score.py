"""The older name of `imgcap score`: `python tools/score.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("score")
