"""A polite end: on SIGTERM, SIGINT or SIGUSR1 the run saves, leaves a marker and exits with code 75."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from imgcap.checkpoint.layout import newest_checkpoint, step_of
from imgcap.errors import INTERRUPTED, how_to_go_on, write_line
from imgcap.ranks.progress import say

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: run again to go on
MARKER = "PREEMPTED"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ONE_CTRL_C = 1.0  # seconds in which a launcher passes a Ctrl-C on that the terminal has sent already


class Preempted(Exception):
    """Raised on every rank once the checkpoint is saved."""


class PreemptionNotice:
    """Remembers that a signal asked this process to stop, and ends it where that takes longer than `grace` seconds.

    Rank 0 says at once what `at_hand` says is still to do. Where the grace runs out (in a long compilation, a save to
    a slow disk, a wait for a rank that is gone) the last whole checkpoint stands, and the run goes on from there. A
    second Ctrl-C ends the process at once; torchrun makes a SIGTERM of it.
    """

    def __init__(self, run: Path, grace: float, is_main: bool):
        self.run, self.grace, self.is_main = run, grace, is_main
        self.requested = False
        self.at_hand: Callable[[], str] = lambda: "finishing the step at hand, then saving a checkpoint"

    def install(self) -> None:
        """Let a thread hear the signals: Python's handlers wait until the main thread leaves a library's call."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _heard_by_the_thread)
        threading.Thread(target=self._listen, args=(read_end,), name="preemption", daemon=True).start()

    def _listen(self, heard: int) -> None:
        while (number := os.read(heard, 1)[0]) not in SIGNALS:
            pass
        asked = time.monotonic()
        self.requested = True
        by_hand = number == signal.SIGINT
        second = (signal.SIGINT, signal.SIGTERM) if "TORCHELASTIC_RUN_ID" in os.environ else (signal.SIGINT,)
        more = "; Ctrl-C again ends at once" if by_hand else ""
        self._say(f"stopping: {self.at_hand()}, within {self.grace:.0f} s (checkpoint.grace){more}")
        while (left := asked + self.grace - time.monotonic()) > 0:
            readable, _, _ = select.select([heard], [], [], left)
            again = bool(readable) and os.read(heard, 1)[0] in second
            if again and by_hand and time.monotonic() - asked > ONE_CTRL_C:
                self._end(INTERRUPTED, "ended at once")
        self._end(PREEMPTED_EXIT_CODE, f"stopped after {self.grace:.0f} s (checkpoint.grace) without a new checkpoint")

    def _end(self, code: int, how: str) -> NoReturn:
        if self.is_main:
            leave_marker(self.run)
            self._say(f"{how}; {last_checkpoint(self.run)}; {how_to_go_on()}")
        os._exit(code)

    def _say(self, line: str) -> None:
        if self.is_main:
            write_line(line)


def last_checkpoint(run: Path) -> str:
    """Name a run's newest checkpoint in a line."""
    newest = newest_checkpoint(run / "checkpoints")
    return f"the last checkpoint is {newest} (step {step_of(newest)})" if newest else "there is no checkpoint yet"


def say_how_to_go_on(run: Path) -> None:
    say(f"stopped: {last_checkpoint(run)}; {how_to_go_on()}")


def leave_marker(run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / MARKER).write_text(
        "preempted; run the same command again, without --resume, to go on from the last checkpoint\n"
    )


def remove_marker(run: Path) -> None:
    (run / MARKER).unlink(missing_ok=True)


def _heard_by_the_thread(number: int, frame: FrameType | None) -> None:
    """Python's own handler, which has nothing left to do."""
