"""Showing how far a long piece of work is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from datetime import timedelta
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts from `start` up to `total` on stderr. One that isn't enabled (a rank that doesn't speak) shows nothing."""

    def __init__(self, total: int, label: str = "", unit: str = "images", start: int = 0, enabled: bool = True) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.start = self.done = start
        self.enabled = enabled
        self.began = self._told = time.monotonic()
        self.bar: tqdm | None = None
        if enabled and sys.stderr.isatty():
            self.bar = tqdm(
                total=total, initial=start, desc=label or None, unit=f" {unit}", dynamic_ncols=True, file=sys.stderr
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
            rate = (self.done - self.start) / (now - self.began)
            self.say(f"{self.label}: {self.done} of {self.total} {self.unit}, {rate:.0f}/s")

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
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        elif self.enabled:
            print(line, file=sys.stderr, flush=True)

    def time_left(self) -> timedelta:
        """Estimate the time left, at the pace since the start."""
        each = (time.monotonic() - self.began) / max(self.done - self.start, 1)
        return timedelta(seconds=round(each * (self.total - self.done)))

    def _move(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done


def _number(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{value:.1f} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"
