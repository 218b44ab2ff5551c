"""The micro-batch that a GPU has memory for, where it had none for the one that was asked for."""

import torch

from imgcap.data.plan import Accumulation
from imgcap.ranks.memory import halves, largest_that_fits, place_of
from imgcap.training.critic import to_measure
from imgcap.training.engines.protocol import Engine
from imgcap.types import Batch, StepInputs

LESS = "lower data.image_size, or set model.encoder.recompute=true, or divide the weights by engine.zero_stage=3"


def micro_batch_that_fits(
    engine: Engine, batch: Batch, accumulation: Accumulation, device: torch.device, first: bool = False
) -> str:
    """Try smaller parts of a micro-batch, forward and backward, and tell in a line which of them fits.

    No rank waits for another in it, and nothing is updated: it may be one rank alone whose memory ran out. What the
    step held has to be free already. In the `first` step there is no optimiser's state yet. The run is over afterwards.
    """
    share = accumulation.micro_batch * accumulation.steps
    sizes = halves(accumulation.micro_batch, of=share)
    told = f"{place_of(device)} has no room for a micro-batch of {accumulation.micro_batch} images"
    parameters = list(engine.raw_model.parameters())
    if sizes and any(hasattr(parameter, "ds_id") for parameter in parameters):
        return f"{told}; set train.micro_batch={sizes[0]} or less"  # ZeRO 3 has whole weights where all ranks are
    engine.release()
    for parameter in parameters:
        parameter.grad = None
    trained = [parameter for parameter in parameters if parameter.requires_grad]

    def attempt(images: int) -> None:
        coming = 3 if first else 1  # a gradient that others are added to, and two moments
        kept = [torch.empty_like(parameter) for parameter in trained for _ in range(coming)]
        part = Batch(*(tensor[:images].to(device) for tensor in batch))
        loss = engine.objective(to_measure(engine.objective, part), StepInputs(count_correct=True))
        torch.autograd.grad(loss.total, trained, allow_unused=True)  # unlike backward(), it begins no exchange of DDP's
        del kept

    with torch.compiler.set_stance("force_eager"):  # compiling anew for each size takes longer than it tells
        fits = largest_that_fits(attempt, sizes)
    if fits is None:
        return f"{told}{', nor for one' if sizes else ''}; {LESS}"
    passes = f"{share // fits} forward passes a step"
    return f"{told}; train.micro_batch={fits} fits: the same global batch and order of samples, in {passes}"
