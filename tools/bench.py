"""Measure what the documentation claims, on whatever device is here: `python tools/bench.py all SHARDS`.

What is compared runs alternately in one process; shown are the median and the range. Floors are the operations over
the rate of matrix products, or the bytes over the bandwidth, both measured in the same run. The table goes to stderr,
the same numbers as JSON, a line a measurement, to stdout.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the measurements lie beside this script, in tools/bench
from imgcap.errors import exits_cleanly  # noqa: E402
from tools.bench.command import main  # noqa: E402

if __name__ == "__main__":
    exits_cleanly(lambda: main(description=__doc__))()
