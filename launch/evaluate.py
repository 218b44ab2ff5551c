"""The older name of `imgcap evaluate`: `python launch/evaluate.py ...`."""

from imgcap.commands.main import run

if __name__ == "__main__":
    run("evaluate")
