"""How far a long piece of work is: a bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from typing import Self

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts up to `total` on stderr. `say` prints a line without tearing the bar."""

    def __init__(self, total: int, label: str, unit: str = "images") -> None:
        self._total, self._label, self._unit = total, label, unit
        self._done = 0
        self._began = self._told = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, desc=self._label, unit=f" {self._unit}", file=sys.stderr)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = now
            rate = self._done / (now - self._began)
            self.say(f"{self._label}: {self._done} of {self._total} {self._unit}, {rate:.0f}/s")

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
