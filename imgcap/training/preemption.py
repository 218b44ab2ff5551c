"""A polite end: on SIGTERM, SIGINT or SIGUSR1 the run saves, leaves a marker and exits with code 75."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run again to go on
MARKER = "PREEMPTED"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Preempted(Exception):
    """Raised on every rank once the checkpoint is saved."""


class PreemptionNotice:
    """Remembers that a signal asked this process to stop, and ends it where that takes longer than `grace` seconds.

    Where the grace runs out (in a long compilation, a save to a slow disk, a wait for a rank that is gone) the last
    whole checkpoint stands, and the run goes on from there. A second SIGINT stops the process at once.
    """

    def __init__(self, run: Path, grace: float, is_main: bool):
        self.run, self.grace, self.is_main = run, grace, is_main
        self.requested = False
        self._interrupted = False

    def install(self) -> None:
        """Let a thread hear the signals: Python's handlers wait until the main thread leaves a library's call."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._interrupt)
        threading.Thread(target=self._listen, args=(read_end,), name="preemption", daemon=True).start()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._interrupted = True

    def _listen(self, read_end: int) -> None:
        while os.read(read_end, 1)[0] not in SIGNALS:
            pass
        self.requested = True
        time.sleep(self.grace)
        if self.is_main:
            print(f"stopped after {self.grace:.0f} s (checkpoint.grace) without a new checkpoint", file=sys.stderr)
            leave_marker(self.run)
        os._exit(PREEMPTED_EXIT_CODE)


def leave_marker(run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / MARKER).write_text("preempted; run the same command again to go on from the last checkpoint\n")


def remove_marker(run: Path) -> None:
    (run / MARKER).unlink(missing_ok=True)
