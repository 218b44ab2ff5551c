"""When to call a result the best so far, and when to stop hoping for a better one."""

import math
from dataclasses import dataclass
from typing import Any

from imgcap.config.decoding import SearchConfig
from imgcap.config.evaluation import EvalConfig
from imgcap.config.training import EarlyStoppingConfig


@dataclass
class EarlyStopping:
    """Follows one metric over the evaluations of a run. A patience of 0 never stops."""

    config: EarlyStoppingConfig
    best: float | None = None
    stale: int = 0  # evaluations since the best one, or since another objective began
    objective: str | None = None  # what the run trained for in the last evaluation
    measured: str | None = None  # on what, and how, evaluations score
    best_step: int | None = None

    def update(self, value: float, objective: str | None = None, step: int | None = None) -> bool:
        """Take in a step's value; True when it improves on the best by more than `min_delta`, or equals it.

        Of equals the newest is the best, having trained longer, as where CIDEr is still 0. Patience takes it for none.
        """
        if objective != self.objective:
            self.objective, self.stale = objective, 0
        if not math.isfinite(value):
            self.stale += 1
            return False
        gain = None if self.best is None else (self.best - value if self.config.metric == "loss" else value - self.best)
        improved = gain is None or gain > self.config.min_delta
        self.best, self.stale = (value, 0) if improved else (self.best, self.stale + 1)
        if is_best := improved or gain == 0:
            self.best_step = step
        return is_best

    def should_stop(self, objective: str | None = None) -> bool:
        """Whether patience is at its end, for a run that would go on with this objective."""
        return objective == self.objective and 0 < self.config.patience <= self.stale

    def state_dict(self) -> dict[str, Any]:
        names = ("best", "stale", "objective", "measured", "best_step")
        return {"metric": self.config.metric, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any], objective: str | None = None) -> None:
        """Go on from a state; one of before it told an objective has `objective`.

        Where evaluations were of another metric, or measured otherwise, the run begins to follow them anew.
        """
        if state["metric"] == self.config.metric and state.get("measured", self.measured) == self.measured:
            self.best, self.stale, self.objective = state["best"], state["stale"], state.get("objective", objective)
            self.best_step = state.get("best_step")


def measured(config: EvalConfig) -> str:
    """On what, and how, evaluations score: results of which this differs don't compare."""
    return config.model_dump_json(include={"split", "limit", *SearchConfig.model_fields})
