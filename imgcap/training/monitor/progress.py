"""How far a run is: a bar in a terminal, a plain line at each log elsewhere."""

import sys
import time
from datetime import timedelta

from tqdm import tqdm


class Progress:
    """Follows steps `start` to `total` on stderr. A disabled one (every rank but 0) prints nothing."""

    def __init__(self, total: int, start: int, enabled: bool = True):
        self.total, self.start, self.enabled = total, start, enabled
        self.began = time.perf_counter()
        self.bar: tqdm | None = None
        if enabled and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True, file=sys.stderr)

    def update(self, step: int, **shown: float) -> None:
        """Show that `step` steps are done, and the named numbers; `images_per_s` reads as images/s."""
        if not self.enabled:
            return
        numbers = [_number(name, value) for name, value in shown.items()]
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(numbers), refresh=False)
            self.bar.update(step - self.bar.n)
        else:
            parts = [f"step {step}/{self.total}", *numbers, f"eta {self._eta(step)}"]
            print("  ".join(parts), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _eta(self, step: int) -> timedelta:
        each = (time.perf_counter() - self.began) / max(step - self.start, 1)
        return timedelta(seconds=round(each * (self.total - step)))


def _number(name: str, value: float) -> str:
    if name.endswith("_per_s"):
        return f"{value:.1f} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"
