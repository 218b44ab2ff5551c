"""An exponential moving average of the weights (Polyak and Juditsky 1992), which is what a run evaluates and saves."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """Weights that a run evaluates: with a decay a copy that follows the model, without one the model itself."""

    def __init__(self, model: nn.Module, decay: float | None):
        self.model = model
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        if self.averaged is not None:
            self.averaged.n_averaged.fill_(1)  # the copy is the average so far

    def update(self) -> None:
        """Take in the weights after a step of the optimiser."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def to_evaluate(self) -> Any:
        """The model to be evaluated and saved, with the buffers that the trained one has now."""
        if self.averaged is None:
            return self.model
        for buffer, value in zip(self.averaged.module.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(value)
        return self.averaged.module

    def training_weights(self) -> dict[str, Tensor]:
        """Weights that training goes on from, where these are not those to be evaluated."""
        return {} if self.averaged is None else self.model.state_dict()

    def load(self, averaged: Mapping[str, Tensor]) -> None:
        if self.averaged is not None:
            self.averaged.module.load_state_dict(averaged)
