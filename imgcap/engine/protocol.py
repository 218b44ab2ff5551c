"""What the trainer may ask of an engine. The trainer has no branch on which engine it drives."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch

from imgcap.models import Captioner
from imgcap.types import Forcing


class StepResult(NamedTuple):
    """What an optimiser step did, as 0-D tensors on the device: reading them is the caller's choice."""

    grad_norm: torch.Tensor  # before clipping
    skipped: torch.Tensor  # 1 where the gradient was not finite, so that nothing was updated
    loss_scale: torch.Tensor


class Engine(Protocol):
    """Owns wrapping, mixed precision, accumulation, clipping, compilation and the optimiser."""

    raw_model: Captioner

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Surrounds one forward and backward; gradients are exchanged between ranks in the last one only."""
        ...

    def forward(
        self,
        images_BCHW: torch.Tensor,
        tokens_BKT: torch.Tensor,
        forcing: Forcing | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the decoder's `output` reads for the T - 1 predictions, and the attention where the decoder attends."""
        ...

    def backward(self, loss_sum: torch.Tensor, global_tokens: torch.Tensor) -> None:
        """Add the gradient of (sum over all ranks of `loss_sum`) / `global_tokens`."""
        ...

    def step(self, rate: float) -> StepResult:
        """Clip, update with the learning rates times `rate`, and clear the gradients."""
        ...

    def synchronise(self) -> None:
        """Give every rank rank 0's BatchNorm statistics, which only its own images move between steps.

        To be called on all ranks before the raw model is evaluated or saved.
        """
        ...

    def learning_rates(self) -> dict[str, float]:
        """The rates of the last step: `lr`, and `encoder_lr` where the encoder trains."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All but the model: optimiser and loss scale, loadable with `weights_only=True`."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
