"""Showing how far a long piece of work is: a bar on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
PATIENCE = 2.0  # seconds


def say(line: str) -> None:
    """Print a line to stderr, above the bars that are open there."""
    if sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def telling(what: str, enabled: bool = True, patience: float = PATIENCE) -> Iterator[None]:
    """Say what is under way where it takes longer than `patience` seconds, and then how long it took."""
    if not enabled:
        yield
        return
    began, late = time.monotonic(), threading.Timer(patience, say, [f"{what} …"])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
    if (seconds := time.monotonic() - began) > patience:
        say(f"{what}: done in {seconds:.0f} s")


class Progress:
    """Counts from `start` up to `total` on stderr. One that isn't enabled (a rank that doesn't speak) shows nothing.

    The unit B is shown in millions or so. A bar that isn't to stay is removed where it ends.
    """

    def __init__(
        self,
        total: int | None,
        label: str = "",
        unit: str = "images",
        start: int = 0,
        enabled: bool = True,
        stays: bool = True,
    ) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.start = self.done = start
        self.enabled = enabled
        self.began = self._told = time.monotonic()
        self.bar: tqdm | None = None
        if enabled and sys.stderr.isatty():
            self.bar = tqdm(
                total=total,
                initial=start,
                desc=label or None,
                unit=unit if unit == "B" else f" {unit}",
                unit_scale=unit == "B",
                dynamic_ncols=True,
                file=sys.stderr,
                leave=stays,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int = 1) -> None:
        """Count so many more as done. Away from a terminal a line says so, now and then."""
        self._move(self.done + count)
        now = time.monotonic()
        if self.bar is None and now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            self.say(f"{self.label}: {self._counted((self.done - self.start) / (now - self.began))}")

    def stage(self, what: str) -> None:
        """Show what is done now that all are counted; away from a terminal only where the counting took a while."""
        if self.bar is not None:
            self.bar.set_postfix_str(what)
        elif time.monotonic() - self.began >= SECONDS_BETWEEN_LINES:
            self.say(f"{self.label}: {what}")

    def update(self, done: int, **shown: float) -> None:
        """Show that `done` are done, with these numbers, of which `images_per_s` reads as images/s."""
        numbers = [_number(name, value) for name, value in shown.items()]
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(numbers), refresh=False)
        self._move(done)
        if self.bar is None:
            self.say("  ".join([f"{self.unit} {done}/{self.total}", *numbers, f"eta {self.time_left()}"]))

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self.enabled:
            say(line)

    def time_left(self) -> timedelta:
        """Estimate the time left, at the pace since the start."""
        assert self.total is not None, "without an end there is no time left"
        each = (time.monotonic() - self.began) / max(self.done - self.start, 1)
        return timedelta(seconds=round(each * (self.total - self.done)))

    def _counted(self, rate: float) -> str:
        """What is done at so many a second, and how long the rest will take."""
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, self.unit)
        of = "" if self.total is None else f" of {self.total / scale:,.0f}"
        left = "" if self.total is None else f", {self.time_left()} left"
        each = f"{rate / scale:.1f} {unit}/s" if self.unit == "B" else f"{rate:.3g}/s"
        return f"{self.done / scale:,.0f}{of} {unit}, {each}{left}"

    def _move(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done


def _number(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{value:.1f} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"
