"""What `--dry-run` says of a run before it trains: its size, its weights, and what a step takes in memory and time."""

import time
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imgcap.config.run import Config
from imgcap.data.batch import BatchShape
from imgcap.data.dataset import features_of
from imgcap.errors import UserError
from imgcap.models.encoders.weights import download_of, load_pretrained
from imgcap.models.trained import load_captioner
from imgcap.ranks.memory import within_memory
from imgcap.training.engines.state import parameter_counts, trainable
from imgcap.training.micro_batch import micro_batch_that_fits
from imgcap.training.resumption import Resumption
from imgcap.training.trainer import Trainer
from imgcap.training.training_data import open_shards
from imgcap.types import UNK, Batch, StepInputs

FEW = (2, 4)  # images of the passes that are tried on a CPU; BatchNorm can't train on one
TRIES = 3  # passes that are timed on a GPU


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

    Nothing where DeepSpeed divides the model: a pass outside of its engine would not be that of a step.
    """
    if config.engine.name == "deepspeed":
        return {}
    device, micro = trainer.world.device, trainer.accumulation.micro_batch
    on_gpu = device.type == "cuda"
    sizes = (micro,) if on_gpu else FEW
    peaks, seconds = [], []
    for images in sizes:
        run = partial(_pass, trainer, _blank(trainer, config, images))
        fits = partial(micro_batch_that_fits, trainer.engine, run.args[1], trainer.accumulation, device, first=True)
        within_memory(run, fits)  # what is made once only
        peaks.append(within_memory(partial(_peak, run, device), fits))
        seconds.append(_seconds(run, device, TRIES if on_gpu else 1) / images)
    each = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0]) if len(sizes) > 1 else 0.0
    step = peaks[-1] + each * (micro - sizes[-1])
    trained = sum(parameter.numel() * 4 for parameter in trainable(trainer.engine.raw_model).values())
    weights = sum(_bytes(module) for module in (trainer.engine.raw_model, *trainer.engine.raw_model.encoder.folded))
    weights += _bytes(trainer.average.averaged) if trainer.average.averaged else 0
    gradients = trained if trainer.accumulation.steps > 1 else 0  # of the micro-batches before
    parts = {"weights": weights, "optimizer": 2 * trained, "step": round(step) + gradients}
    tried = f"passes of {' and '.join(map(str, sizes))} blank images on {device.type}"
    a_step = seconds[-1] * micro * trainer.accumulation.steps
    return {
        "memory": {"total": sum(parts.values()), **parts, "unit": "bytes a rank", "how": f"tensors alive in {tried}"},
        "time": {
            "step": round(a_step, 4),
            "run": round(a_step * trainer.timetable.total),
            "unit": "seconds",
            "how": f"forward and backward in {tried}, uncompiled; without loading, exchange, update and evaluation",
        },
    }


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


def _pass(trainer: Trainer, batch: Batch) -> None:
    parameters = list(trainable(trainer.engine.raw_model).values())
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than it tells
        loss = trainer.engine.objective(batch, StepInputs(count_correct=True))
        torch.autograd.grad(loss.total, parameters, allow_unused=True)


def _peak(run: Any, device: torch.device) -> int:
    """Most bytes that a pass has at once, of what it makes itself."""
    if device.type != "cuda":
        with _Alive() as alive:
            run()
        return alive.peak
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def _seconds(run: Any, device: torch.device, tries: int) -> float:
    started = time.perf_counter()
    for _ in range(tries):
        run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return (time.perf_counter() - started) / tries


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they are alive. What one needs within is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if id(storage) not in given and storage not in self._known:
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _free(self, count: int) -> None:
        self.now -= count


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
