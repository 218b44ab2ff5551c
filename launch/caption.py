"""The older name of `imgcap caption ... --out FILE`: `python launch/caption.py ...`."""

from imgcap.commands.caption import parse, run
from imgcap.errors import exits_cleanly

if __name__ == "__main__":
    exits_cleanly(lambda: run(parse(out_required=True)))()
