"""The learning rate over a run, as a factor on every group's base rate."""

import math
from typing import Any

from imgcap.config.section import steps_of
from imgcap.config.training import OptimConfig


class LearningRate:
    """Schedule of a linear warm-up, then `constant`, `cosine`, `step` or `plateau`, never below `min_lr` after it."""

    def __init__(self, config: OptimConfig, total_steps: int, steps_per_epoch: int):
        self.schedule, self.floor, self.gamma = config.schedule, config.min_lr, config.gamma
        self.total_steps = total_steps
        self.warmup = steps_of(config.warmup, steps_per_epoch)
        self.step_every = max(steps_of(config.step_every, steps_per_epoch), 1)
        self.patience = config.plateau_patience
        self.plateau_factor = 1.0
        self.best: float | None = None
        self.stale = 0  # evaluations since the best one or the last cut

    def factor(self, step: int) -> float:
        """The factor of the update that follows `step` finished ones; the first is 1 / warm-up, not 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        past = step - self.warmup
        if self.schedule == "cosine":
            progress = min(past / max(self.total_steps - self.warmup, 1), 1.0)
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "step":
            return max(self.gamma ** (past // self.step_every), self.floor)
        return max(self.plateau_factor, self.floor) if self.schedule == "plateau" else 1.0

    def evaluated(self, value: float, lower_is_better: bool) -> None:
        """Tell `plateau` a validation result: after more than `plateau_patience` without a better one it cuts."""
        better = math.isfinite(value) and (
            self.best is None or (value < self.best if lower_is_better else value > self.best)
        )
        if better:
            self.best, self.stale = value, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.plateau_factor, self.stale = self.plateau_factor * self.gamma, 0

    def state_dict(self) -> dict[str, Any]:
        return {"plateau_factor": self.plateau_factor, "best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.plateau_factor, self.best, self.stale = state["plateau_factor"], state["best"], state["stale"]
