"""Run a script on the one core that this rank's number says: `torchrun ... tools/bench/pinned.py SCRIPT ARGUMENTS`."""

import os
import runpy
import sys
from pathlib import Path


def cores() -> list[int]:
    """One processor of each core that this process may use: two hardware threads of a core are no two cores."""
    first: dict[str, int] = {}
    for processor in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else str(processor), processor)
    return list(first.values())


if __name__ == "__main__":
    os.sched_setaffinity(0, {cores()[int(os.environ["LOCAL_RANK"])]})
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
