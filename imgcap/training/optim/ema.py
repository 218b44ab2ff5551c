"""An exponential moving average of the weights (Polyak and Juditsky 1992), which is what a run evaluates and saves."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Weights that a run evaluates: with a decay a copy that follows the model, without one the model itself.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's average: with a constant one a short run
    would still evaluate a share of its first weights. BatchNorm's statistics are averaged as the weights are.
    """

    def __init__(self, model: nn.Module, decay: float | None):
        self.model, self.decay = model, decay
        self.averaged = deepcopy(model) if decay else None  # the copy is the average so far
        device = next(iter(_numbers(model))).device
        self.steps = torch.zeros((), device=device)  # on the device: a captured step counts too

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step of the optimiser."""
        if self.averaged is None or self.decay is None:
            return
        self.steps += 1
        share = (9 / (10 + self.steps)).clamp(min=1 - self.decay)
        averaged = _numbers(self.averaged)
        moves = torch._foreach_sub(_numbers(self.model), averaged)
        torch._foreach_mul_(moves, share)
        torch._foreach_add_(averaged, moves)

    def to_evaluate(self) -> Any:
        """The model to be evaluated and saved."""
        return self.model if self.averaged is None else self.averaged

    def training_weights(self) -> dict[str, Tensor]:
        """Weights that training goes on from, where these are not those to be evaluated."""
        return {} if self.averaged is None else self.model.state_dict()

    def load(self, averaged: Mapping[str, Tensor], steps: int) -> None:
        """Go on from an average of so many steps."""
        if self.averaged is not None:
            self.averaged.load_state_dict(averaged)
            self.steps.fill_(steps)


def _numbers(model: nn.Module) -> list[Tensor]:
    """All that is averaged: what counts, as BatchNorm's batches, is not."""
    return [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
