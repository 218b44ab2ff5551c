"""The whole training step on real shards: beside its parts, over many steps, and as images and captions grow.

Dimensions: B images, K captions an image, C colour channels, H W pixels, T tokens, P grid cells, E encoder width.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgcap.config.engine import EngineConfig
from imgcap.config.load import load_config
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.data.loader import reading
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.models.losses import caption_loss
from imgcap.models.precision import autocast
from imgcap.ranks.world import World, init_ranks
from imgcap.training.assembly import assemble
from imgcap.training.engines.build import build_engine
from imgcap.training.engines.protocol import Engine
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.resumption import Resumption
from imgcap.training.trainer import Trainer
from imgcap.types import Batch
from tools.bench.decoder import VOCABULARY
from tools.bench.engine import random_tokens, step_of
from tools.bench.parts import MODEL
from tools.bench.timing import PRECISIONS, Row, alternate, row, timed

TENTHS = 10
READ_AHEAD = 10  # steps: more than a loader of two workers can be ahead
STEPS_A_REPEAT = 8


OPTIONS = {
    "images": (16, "of a step"),
    "image-size": 224,
    "encoder": "resnet50",
    "precisions": ([str], "default: all that the device has"),
    "compile": (False, "also compiled"),
    "steps": (int, "instead: so many steps on end, and how time and memory go"),
}
LINEAR_OPTIONS = {"images": [4, 8, 16, 32], "captions": [1, 3, 5], "image-size": 224, "tokens": 22}


def bench_train(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole training step, beside its encoder and its decoder alone on a batch of its own, or how flat it is."""
    if arguments.steps is not None and arguments.steps < TENTHS:
        raise UserError(f"--steps {arguments.steps} is too few to be shown in tenths; give 10 or more")
    precisions = arguments.precisions or PRECISIONS[arguments.device.type]
    world = init_ranks(str(arguments.device))
    rows: list[Row] = []
    for precision in precisions:
        for compiled in ("off", "default") if arguments.compile else ("off",):
            with ExitStack() as stack:
                folder = stack.enter_context(TemporaryDirectory())
                given = [
                    f"data={{shards: {arguments.shards}, image_size: {arguments.image_size}, workers: 2}}",
                    f"model.encoder={{name: {arguments.encoder}, weights: none}}",
                    f"train={{global_batch: {arguments.images}, precision: {precision}, compile: {compiled}}}",
                ]
                trainer = stepping(None, given, Path(folder), world)
                batches = stack.enter_context(reading(trainer.loader))
                if arguments.steps:
                    rows += _many_steps(trainer, batches, arguments.steps, precision)
                else:
                    rows += _beside_parts(trainer, batches, arguments, f"{precision}, compile {compiled}")
    return {"rows": rows}


def stepping(config: Path | None, given: list[str], folder: Path, world: World) -> Trainer:
    """A trainer of a run without end, which neither logs nor evaluates nor saves of itself."""
    endless = ["train.epochs=100000", "optim.schedule=constant"]
    silent = ["eval.every=0", "checkpoint.every=0", "log={every: 0, tensorboard: false}"]
    whole = load_config(config, [*given, *endless, *silent, f"run_dir={folder}"])
    return assemble(whole, world, Resumption(folder, "no"))


def _beside_parts(trainer: Trainer, batches: Iterator[Batch], arguments: argparse.Namespace, label: str) -> list[Row]:
    """Rows of the whole step, with the loader's share that it waits for, and of its parts, compiled where it is."""
    engine, device = trainer.engine, trainer.world.device
    batch = Batch(*(tensor.to(device) for tensor in next(batches)))
    encode = _objective(engine).encode  # as the engine runs it, compiled where it compiles
    with autocast(device, trainer.config.precision), torch.no_grad():
        features_BPE = encode(batch.images_BCHW).clone()

    def encoder() -> None:
        with autocast(device, trainer.config.precision):
            encode(batch.images_BCHW)

    feed = trainer.feed(batches)
    whole_step = timed(lambda: trainer.train_step(feed), device)
    for _ in range(READ_AHEAD):  # what the loader had ready while nothing took it
        whole_step()
    trainer.meter.restart_clock()
    seconds = {"whole step": [whole_step() for _ in range(arguments.repeats * STEPS_A_REPEAT)]}
    waited = trainer.meter.waited
    parts: dict[str, Callable[[], object]] = {
        "encoder alone": encoder,
        "decoder alone": lambda: _decoder_step(engine, features_BPE, batch, trainer.config.precision),
    }
    seconds |= alternate({name: timed(run, device) for name, run in parts.items()}, arguments.repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [row(f"{label}, {name}", values, arguments.images, "images") for name, values in seconds.items()]
    rows[0]["of_the_parts"] = round((medians["encoder alone"] + medians["decoder alone"]) / medians["whole step"], 3)
    rows[0]["wait_share"] = round(waited / sum(seconds["whole step"]), 4)
    return rows


def _objective(engine: Engine) -> CrossEntropy:
    assert isinstance(engine.objective, CrossEntropy)
    return engine.objective


def _decoder_step(engine: Engine, features_BPE: Tensor, batch: Batch, precision: str) -> None:
    with autocast(features_BPE.device, precision):
        readout_BKTR, _ = _objective(engine).unroll(features_BPE, batch.tokens_BKT, None)
    loss = caption_loss(readout_BKTR, engine.raw_model.decoder.output, batch.tokens_BKT, 0.0)
    engine.backward(loss.total, loss.tokens)
    engine.step(torch.ones(()))


def _many_steps(trainer: Trainer, batches: Iterator[Batch], steps: int, precision: str) -> list[Row]:
    """Rows of a tenth of the steps each: their median, and the memory at their end."""
    feed = trainer.feed(batches)
    rows, step = [], timed(lambda: trainer.train_step(feed), trainer.world.device)
    for tenth in range(TENTHS):
        seconds = [step() for _ in range(steps // TENTHS)]
        name = f"{precision}, to step {(tenth + 1) * (steps // TENTHS)}"
        rows.append(row(name, seconds, trainer.plan.global_batch, "images") | {"MiB": _memory(trainer.world.device)})
    return rows


def _memory(device: torch.device) -> int:
    """Memory in use now, in MiB: by the GPU's allocator, or by this process."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) >> 20
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) >> 10


def bench_linear(arguments: argparse.Namespace) -> dict[str, Any]:
    """How a step's cost grows: milliseconds = a + b × images + c × captions, by least squares over sizes, in bf16."""
    world = init_ranks(str(arguments.device))
    model, train = Captioner(MODEL, VOCABULARY), TrainConfig(precision="bf16")
    engine = build_engine(EngineConfig(), CrossEntropy(model, train), train, OptimConfig(), world)
    sizes = [(images, captions) for images in arguments.images for captions in arguments.captions]
    runs = {f"{b} images x {k} captions": _synthetic_step(engine, b, k, arguments) for b, k in sizes}
    seconds = alternate({name: timed(run, world.device) for name, run in runs.items()}, arguments.repeats)
    measured = np.array([1000 * statistics.median(values) for values in seconds.values()])
    design = np.array([[1, images, images * captions] for images, captions in sizes])
    # Relative errors: the small steps say as much of the shape as the large ones.
    (base, of_an_image, of_a_caption), *_ = np.linalg.lstsq(design / measured[:, None], np.ones(len(sizes)), rcond=None)
    fitted = design @ [base, of_an_image, of_a_caption]
    rows = [
        row(name, values, images, "images") | {"fit_ms": round(float(fit), 2)}
        for (name, values), (images, _), fit in zip(seconds.items(), sizes, fitted, strict=True)
    ]
    unexplained = ((measured - fitted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    fit = {"ms": base, "ms_an_image": of_an_image, "ms_a_caption": of_a_caption, "r_squared": 1 - unexplained}
    return {"rows": rows, "fit": {name: round(float(value), 4) for name, value in fit.items()}}


def _synthetic_step(engine: Engine, images: int, captions: int, arguments: argparse.Namespace) -> Callable[[], None]:
    device, size = arguments.device, arguments.image_size
    images_BCHW = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, device=device)
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    tokens_BKT = random_tokens((images, captions, arguments.tokens), VOCABULARY, device)
    return step_of(engine, Batch(images_BCHW, tokens_BKT, torch.arange(images, device=device)))
