"""What `--dry-run` says of a run before it trains: its size, its weights, and what a step takes in memory and time."""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from imgcap.config.run import Config
from imgcap.data.batch import BatchShape
from imgcap.data.dataset import features_of
from imgcap.errors import UserError
from imgcap.models.encoders.weights import download_of, load_pretrained
from imgcap.models.trained import load_captioner
from imgcap.ranks.memory import LiveTensors, within_memory
from imgcap.shards.token_counts import TokenCounts
from imgcap.training.critic import to_measure
from imgcap.training.engines.state import parameter_counts, trainable
from imgcap.training.micro_batch import micro_batch_that_fits
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.objectives.self_critical import SelfCritical
from imgcap.training.resumption import Resumption
from imgcap.training.trainer import Trainer
from imgcap.training.training_data import open_shards
from imgcap.types import PAD, UNK, Batch, StepInputs

FEW = [8, 16]  # images of the passes that are tried on a CPU; below, memory grows more slowly
TRIES = 3  # passes that are timed on a GPU
PATIENCE = 20.0  # seconds of a pass


def describe(trainer: Trainer, config: Config, resumption: Resumption) -> dict[str, Any]:
    """What `--dry-run` prints. Raises `UserError` where weights can't be read or a GPU has no room for a step.

    To be called on all ranks, which compute at once as they will in training; none waits for another.
    """
    trained, frozen = parameter_counts(trainer.engine.raw_model)
    return {
        "parameters": {"total": trained + frozen, "trainable": trained, "frozen": frozen},
        "images": trainer.plan.samples,
        "steps_per_epoch": trainer.plan.steps_per_epoch,
        "total_steps": trainer.timetable.total,
        "global_batch": trainer.plan.global_batch,
        "micro_batch": trainer.accumulation.micro_batch,
        "accumulation": trainer.accumulation.steps,
        "world_size": trainer.world.world_size,
        "run": str(config.run_path),
        "changed": {change.key: [change.old, change.new] for change in resumption.differences(config)},
        "refused": _refusal(config, resumption),
        "weights": _weights(trainer, config),
        **_estimates(trainer, config),
    }


def _refusal(config: Config, resumption: Resumption) -> str | None:
    """Why the same command without --dry-run would not go on with the run that is there; None where it would."""
    try:
        resumption.accepted(config)
    except UserError as refusal:
        return str(refusal)
    return None


def _weights(trainer: Trainer, config: Config) -> dict[str, Any]:
    """Where the first weights come from, once they have been read; what would be downloaded is not."""
    if config.init_from is not None:
        load_captioner(config.init_from)
        return {"source": str(config.init_from), "to_download": False}
    encoder, weights = trainer.engine.raw_model.encoder, config.model.encoder.weights
    if (address := download_of(encoder.name, weights)) is not None:
        return {"source": address, "to_download": True}
    load_pretrained(encoder, weights)
    return {"source": weights or "random", "to_download": False}


def _estimates(trainer: Trainer, config: Config) -> dict[str, Any]:
    """Memory and time of a rank, by a few passes forward and backward over blank pictures with full captions.

    On a CPU time is that of captions as long as the train split's: it computes no padding. Left out, with the reason,
    where DeepSpeed divides the model: a pass outside of its engine would not be that of a step. So is time where a
    GPU's fp16 is tried as bf16, which takes as much memory, and all where a pass takes long.
    """
    if config.engine.name == "deepspeed":
        return {"left_out": "memory and time: DeepSpeed divides the model"}
    device, micro = trainer.world.device, trainer.accumulation.micro_batch
    on_gpu, objective = device.type == "cuda", trainer.engine.objective
    by_bf16 = not on_gpu and config.train.precision == "fp16"
    if by_bf16:
        assert isinstance(objective, CrossEntropy)
        objective.precision = "bf16"
    if drawn := isinstance(objective, SelfCritical):
        objective.eval()  # as it is in its self-critical steps, which take the most
    sizes = [micro] if on_gpu else FEW
    peaks, seconds = [], []
    for images in [sizes[0], *sizes]:  # the first pass makes what is made once only
        batch = _blank(trainer, config, images)
        fits = partial(micro_batch_that_fits, trainer.engine, batch, trainer.accumulation, device, first=True)
        peak, taken = within_memory(partial(_measured, partial(_pass, trainer, batch), device), fits)
        if taken > PATIENCE:
            return {"left_out": f"memory and time: a pass of {images} images takes {taken:.0f} s on {device.type}"}
        peaks.append(peak)
        seconds.append(taken)
    more = micro - sizes[-1]
    step = peaks[-1] + (more * (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2]) if more else 0)
    tried = f"passes of {' and '.join(map(str, sizes))} blank images on {device.type}"
    how = f"tensors alive in {tried} with full captions"
    found = {"memory": {**_memory(trainer, round(step)), "unit": "bytes a rank", "how": how}}
    if by_bf16:
        return found | {"left_out": f"time: fp16 was tried as bf16 on {device.type}"}
    lengths = None if on_gpu else _lengths(config)
    if lengths:
        _, seconds[-1] = _measured(partial(_pass, trainer, batch, lengths), device)
    each = seconds[-1] / sizes[-1] * micro * trainer.accumulation.steps
    passes = "drawing captions, forward and backward" if drawn else "forward and backward"
    captions = "captions as long as those of train" if lengths else "full captions"
    how = f"{passes} in {tried} with {captions}, uncompiled; without loading, exchange, update and evaluation"
    total = trainer.timetable.total
    return found | {"time": {"step": round(each, 4), "run": round(each * total), "unit": "seconds", "how": how}}


def _memory(trainer: Trainer, step: int) -> dict[str, int]:
    """Bytes that are kept all along, beside those of a micro-batch's pass."""
    model, averaged = trainer.engine.raw_model, trainer.average.averaged
    trained = sum(parameter.nbytes for parameter in trainable(model).values())
    modules = [model, *model.encoder.folded, *([averaged] if averaged else [])]
    if trainer.config.objective == "self_critical" and trainer.config.self_critical.kl is not None:
        modules.append(model)  # as it was when its self-critical steps began
    weights = sum(tensor.nbytes for module in modules for tensor in (*module.parameters(), *module.buffers()))
    gradients = trained if trainer.accumulation.steps > 1 else 0  # of the micro-batches before
    parts = {"weights": weights, "optimizer": 2 * trained, "step": step + gradients}
    return {"total": sum(parts.values()), **parts}


def _blank(trainer: Trainer, config: Config, images: int) -> Batch:
    data = config.data
    features = features_of(open_shards(data, data.shards, "train"), data) if data.mode == "index" else None
    shape = BatchShape(
        images, data.image_size, data.captions_per_image, data.max_tokens + 2, features.shape if features else None
    )
    (batch,) = shape.allocate(1)
    batch.images_BCHW.zero_()
    batch.image_ids.zero_()
    batch.tokens_BKT.fill_(UNK)
    return Batch(*(tensor.to(trainer.world.device) for tensor in batch))


def _lengths(config: Config) -> Counter[int]:
    """Count the train split's captions by their words; old shard sets don't know."""
    return TokenCounts.load(open_shards(config.data, config.data.shards, "train").place).lengths


def _pass(trainer: Trainer, batch: Batch, lengths: Counter[int] | None = None) -> None:
    parameters = list(trainable(trainer.engine.raw_model).values())
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than it tells
        objective = trainer.engine.objective
        measured = to_measure(objective, batch)
        if lengths:
            measured = measured._replace(tokens_BKT=_shortened(measured.tokens_BKT, lengths))
        loss = objective(measured, StepInputs(count_correct=True))
        torch.autograd.grad(loss.total, parameters, allow_unused=True)


def _shortened(tokens_BKT: Tensor, lengths: Counter[int]) -> Tensor:
    """Cut full captions to lengths that have the distribution of these: their quantiles."""
    captions, words = tokens_BKT[..., 0].numel(), sorted(lengths)
    up_to = list(accumulate(lengths[length] for length in words))
    places = [(2 * n + 1) * up_to[-1] // (2 * captions) for n in range(captions)]
    words_N = torch.tensor([words[bisect_right(up_to, place)] for place in places])
    ended_BKT = torch.arange(tokens_BKT.shape[2]) > words_N.view(*tokens_BKT.shape[:2], 1) + 1  # <sos> and <eos>
    return tokens_BKT.masked_fill(ended_BKT.to(tokens_BKT.device), PAD)


def _measured(run: Callable[[], None], device: torch.device) -> tuple[int, float]:
    """Most bytes that a pass has at once, of what it makes itself, and the seconds that it takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before, started = torch.cuda.memory_allocated(device), time.perf_counter()
        for _ in range(TRIES):
            run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, (time.perf_counter() - started) / TRIES
    started = time.perf_counter()
    with LiveTensors() as alive:
        run()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
    return alive.peak, time.perf_counter() - started
