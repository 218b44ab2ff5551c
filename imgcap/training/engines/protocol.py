"""What the trainer may ask of an engine. The trainer has no branch on which engine it drives."""

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.training.objectives.base import Objective
from imgcap.types import Batch, StepInputs


class StepResult(NamedTuple):
    """What an optimiser step did, as 0-D tensors on the device: reading them is the caller's choice."""

    grad_norm: Tensor  # before clipping
    skipped: Tensor  # 1 where the gradient was not finite, so that nothing was updated
    loss_scale: Tensor


class Engine(Protocol):
    """Owner of wrapping, mixed precision, accumulation, clipping, compilation and the optimiser."""

    objective: Objective
    raw_model: Captioner  # that of the objective

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Context of one forward and backward; gradients are exchanged between ranks in the last one only."""

    @property
    def warm(self) -> bool:
        """Whether the next loss needs no warm-up before it."""

    def warm_up(self, batch: Batch, step: StepInputs) -> None:
        """Run a micro-batch that counts for nothing: no gradient, statistic or random draw of it stays."""

    def loss(self, batch: Batch, step: StepInputs) -> Loss:
        """Compute the objective of a micro-batch: sums over this rank's part of it."""

    def backward(self, loss_sum: Tensor, global_tokens: Tensor) -> None:
        """Add the gradient of (sum over all ranks of `loss_sum`) / `global_tokens`."""

    def step(self, rate: Tensor) -> StepResult:
        """Clip, update with the groups' base learning rates times `rate` (0-D), and clear the gradients."""

    def whole_model(self) -> AbstractContextManager[Captioner]:
        """Context of the raw model with all its weights on every rank, to be evaluated or saved. Entered on all ranks.

        Every rank has rank 0's BatchNorm statistics, which only its own images move between steps.
        """

    def freeze_encoder(self, stages: int) -> None:
        """Freeze so many of the encoder's stages and train the others from here on; see `Encoder.freeze`.

        To be called between steps, on all ranks. What trained before keeps its optimiser's state.
        """

    def base_rates(self) -> dict[str, float]:
        """Learning rates before the schedule's factor: `lr`, and `encoder_lr` where the encoder trains."""

    def state_dict(self) -> dict[str, Any]:
        """State of all but the model, loadable with `weights_only=True` by any engine on any number of ranks.

        To be called on all ranks; rank 0's is the one to save.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises `UserError` where it belongs to other trainable parameters."""
