"""A polite end: on SIGTERM, SIGINT or SIGUSR1 the run saves, leaves a marker and exits with code 75."""

import signal
from pathlib import Path
from types import FrameType

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run again to go on
MARKER = "PREEMPTED"


class Preempted(Exception):
    """Raised on every rank once the checkpoint is saved."""


class PreemptionNotice:
    """Remembers that a signal asked this process to stop; a second SIGINT stops it at once."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(name, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def leave_marker(run: Path) -> None:
    (run / MARKER).write_text("preempted with a checkpoint saved; run the same command again to go on\n")


def remove_marker(run: Path) -> None:
    (run / MARKER).unlink(missing_ok=True)
