"""A script in which a rank is killed with SIGKILL: killed.py '{"rank": 1, "at": "append", "after": 2}' SCRIPT ...

`append`: within the write of a batch, after half of its line; `summary` and `out`: after that file is written.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

from imgcap.captioning import journal

FAULT, SCRIPT = json.loads(sys.argv[1]), sys.argv[2]
calls = 0


def due(at):
    """Whether this is the rank and the instant."""
    global calls
    if FAULT["at"] != at or int(os.environ.get("RANK", 0)) != FAULT["rank"]:
        return False
    calls += 1
    return calls > FAULT.get("after", 0)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def append(self, rows, whole=journal.Journal.append):
    if due("append"):
        line = json.dumps(rows).encode()
        os.write(self._file, line[: len(line) // 2])
        die()
    whole(self, rows)
    time.sleep(0.05)  # so that each rank has a share


def write_whole(path, data, whole=journal.write_whole):
    whole(path, data)
    if path.name.endswith(".summary.json") and due("summary"):
        die()
    if path.suffix in journal.FORMATS and due("out"):
        die()


journal.Journal.append, journal.write_whole = append, write_whole
sys.argv = sys.argv[2:]
sys.path[0] = str(Path(SCRIPT).resolve().parent)
runpy.run_path(SCRIPT, run_name="__main__")
