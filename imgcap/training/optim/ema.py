"""An exponential moving average of the weights (Polyak and Juditsky 1992), which is what a run evaluates and saves."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Weights that a run evaluates: with a decay a copy that follows the model, without one the model itself."""

    def __init__(self, model: nn.Module, decay: float | None):
        self.model, self.decay = model, decay
        self.averaged = deepcopy(model) if decay else None  # the copy is the average so far

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step of the optimiser."""
        if self.averaged is not None and self.decay is not None:
            averaged: list[Tensor] = list(self.averaged.parameters())
            torch._foreach_lerp_(averaged, list[Tensor](self.model.parameters()), 1 - self.decay)

    def to_evaluate(self) -> Any:
        """The model to be evaluated and saved, with the buffers that the trained one has now."""
        if self.averaged is None:
            return self.model
        for buffer, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(value)
        return self.averaged

    def training_weights(self) -> dict[str, Tensor]:
        """Weights that training goes on from, where these are not those to be evaluated."""
        return {} if self.averaged is None else self.model.state_dict()

    def load(self, averaged: Mapping[str, Tensor]) -> None:
        if self.averaged is not None:
            self.averaged.load_state_dict(averaged)
