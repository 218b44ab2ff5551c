"""What the trainer may ask of an engine. The trainer has no branch on which engine it drives."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch

from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.types import Batch, Forcing


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

    def forward(self, batch: Batch, forcing: Forcing | None, count_correct: bool = False) -> tuple[Loss, torch.Tensor]:
        """The loss of a micro-batch, and of its tokens how many were the likeliest and among the five likeliest.

        The counts are int64, shape (2,); zeros where `count_correct` doesn't ask for them.
        """
        ...

    def backward(self, loss_sum: torch.Tensor, global_tokens: torch.Tensor) -> None:
        """Add the gradient of (sum over all ranks of `loss_sum`) / `global_tokens`."""
        ...

    def step(self, rate: float) -> StepResult:
        """Clip, update with the learning rates times `rate`, and clear the gradients."""
        ...

    def whole_model(self) -> AbstractContextManager[Captioner]:
        """The raw model with all its weights on every rank, to be evaluated or saved. To be entered on all ranks.

        Every rank has rank 0's BatchNorm statistics, which only its own images move between steps.
        """
        ...

    def freeze_encoder(self, stages: int) -> None:
        """Freeze so many of the encoder's stages and train the others from here on; see `Encoder.freeze`.

        To be called between steps, on all ranks. What trained before keeps its optimiser's state.
        """
        ...

    def learning_rates(self) -> dict[str, float]:
        """The rates of the last step: `lr`, and `encoder_lr` where the encoder trains."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All but the model, loadable with `weights_only=True` by any engine on any number of ranks; see `state`.

        To be called on all ranks; rank 0's is the one to save.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `UserError` where the state belongs to other trainable parameters."""
        ...
