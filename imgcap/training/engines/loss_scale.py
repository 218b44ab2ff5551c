"""The loss scale of fp16 where the optimiser is partitioned, so that torch's GradScaler can't see the gradients."""

from typing import Any

START, GROWTH, BACKOFF, GROWTH_EVERY = 2.0**16, 2.0, 0.5, 2000  # those of torch.amp.GradScaler


class LossScale:
    """Loss scale, halved at a gradient that is not finite, doubled after 2,000 good steps; 1 if not enabled."""

    def __init__(self, enabled: bool):
        self.enabled = enabled
        self.scale, self.good_steps = (START if enabled else 1.0), 0

    def update(self, skipped: bool) -> None:
        if not self.enabled:
            return
        self.good_steps = 0 if skipped else self.good_steps + 1
        if skipped:
            self.scale *= BACKOFF
        elif self.good_steps == GROWTH_EVERY:
            self.scale, self.good_steps = self.scale * GROWTH, 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps} if self.enabled else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.enabled and state:
            self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
