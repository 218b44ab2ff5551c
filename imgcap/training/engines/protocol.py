"""What the trainer may ask of an engine. The trainer has no branch on which engine it drives."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.training.objectives.base import Objective
from imgcap.training.optim.groups import rate_on
from imgcap.types import Batch, Sampled, StepInputs


class Numbers(NamedTuple):
    """What changes from step to step, as 0-D tensors on the device: no step reads one on the host."""

    step: Tensor  # int64: finished ones
    ratio: Tensor  # probability of reading the true word (teacher forcing)
    rate: Tensor  # factor of the learning rates


def numbers_on(device: torch.device, step: int, ratio: float, factor: float) -> Numbers:
    """Put the numbers of a step on the device, without waiting for it."""
    rate = rate_on(device, factor)
    return Numbers(torch.full((), step, device=device), torch.full((), ratio, device=device), rate)


class Step(NamedTuple):
    """A step over a global batch. Steps of one `kind` compute the same but for the values of tensors."""

    micro_batches: Sequence[Batch | Sampled]  # this rank's, on the device
    numbers: Numbers
    tokens: Callable[[], Tensor]  # waits for the number of targets, over all ranks and micro-batches
    inputs: Callable[[Any, Numbers], StepInputs]  # of the objective
    kind: Hashable  # all that `inputs` decides on the host
    updated: Callable[[], None]  # follows the update of the weights: their average


class StepResult(NamedTuple):
    """What an optimiser step did, as 0-D tensors on the device: reading them is the caller's choice."""

    grad_norm: Tensor  # before clipping
    skipped: Tensor  # 1 where the gradient was not finite, so that nothing was updated
    loss_scale: Tensor


class Outcome(NamedTuple):
    """What a step computed, on the device; good until the next one."""

    losses: list[Loss]  # of the micro-batches
    result: StepResult


class Engine(Protocol):
    """Owner of wrapping, mixed precision, accumulation, clipping, compilation and the optimiser."""

    objective: Objective
    raw_model: Captioner  # that of the objective
    exchanged: torch.dtype  # of the gradients, between ranks

    def run(self, step: Step) -> Outcome:
        """Take a step: the losses of its micro-batches, their gradient, and the update of the weights."""

    def release(self) -> None:
        """Free what is kept from step to step to take them faster, where memory has run out."""

    def micro_batch(self, last: bool) -> AbstractContextManager[None]:
        """Context of one forward and backward; gradients are exchanged between ranks in the last one only."""

    @property
    def warm(self) -> bool:
        """Whether the next loss needs no warm-up before it."""

    def warm_up(self, batch: Batch | Sampled, step: StepInputs) -> None:
        """Run a micro-batch that counts for nothing: no gradient, statistic or random draw of it stays."""

    def loss(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        """Compute the objective of a micro-batch: sums over this rank's part of it."""

    def backward(self, loss_sum: Tensor, global_tokens: Tensor) -> None:
        """Add the gradient of (sum over all ranks of `loss_sum`) / `global_tokens`."""

    def step(self, rate: Tensor) -> StepResult:
        """Clip, update with the groups' base learning rates times `rate` (0-D), and clear the gradients."""

    def weights(self) -> AbstractContextManager[None]:
        """Context in which every rank has all weights, to compute with them outside of a step's loss."""

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


def run_plainly(engine: Engine, step: Step) -> Outcome:
    """Take a step as it is written: this is what every engine computes, whichever way it launches it."""
    losses: list[Loss] = []
    for number, batch in enumerate(step.micro_batches, start=1):
        inputs = step.inputs(batch, step.numbers)
        if not engine.warm:
            engine.warm_up(batch, inputs)
        with engine.micro_batch(last=number == len(step.micro_batches)):
            loss = engine.loss(batch, inputs)
            engine.backward(loss.total, step.tokens())  # summed while the first forward ran
        losses.append(Loss(*(value.detach() for value in loss)))
    result = engine.step(step.numbers.rate)
    step.updated()
    return Outcome(losses, result)
