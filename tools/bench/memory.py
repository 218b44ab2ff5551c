"""The memory that a training step takes, counted on a CPU: every tensor that torch makes, while it lives.

What a step holds is a sum: what is there for any batch (weights, gradients, the optimiser's moments), and so much an
image. Both follow from steps of a few images, and say how many images fit where there is more memory. What CUDA, cuDNN
and the allocator's rounding take is not seen; RESERVE_GIB is left to them. The kernels of a GPU keep less than the
reference that is counted here.

Dimensions: B images, C colour channels, H W pixels, K captions an image, T tokens.
"""

import argparse
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imgcap.config.load import load_config
from imgcap.config.run import Config
from imgcap.config.shipped import config_file
from imgcap.models.captioner import Captioner
from imgcap.models.encoders.base import Encoder
from imgcap.ranks.memory import LiveTensors
from imgcap.ranks.world import World
from imgcap.training.engines.captured import CapturedEngine
from imgcap.training.engines.protocol import StepResult
from imgcap.training.engines.state import parameter_counts
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import Batch
from tools.bench.counting import training_operations
from tools.bench.engine import random_tokens, step_of
from tools.bench.timing import Row

CONFIGS = ["flickr8k_scratch", "flickr8k", "flickr30k", "coco", "imgcap_attention", "imgcap_lstm"]
OPTIONS = {
    "configs": ([str], f"YAML files, or names of those that come with imgcap (default: {' '.join(CONFIGS)})"),
    "keys": ([str], "dotted.key=value, for all of them"),
    "vocabulary": (7000, "words, where the configuration doesn't bound them"),
    "images": (8, "images of the smaller of two steps; the other has twice as many"),
}
GPUS_GIB = (8, 16, 24, 80)
RESERVE_GIB = 1.5
GIB, MIB = 2.0**30, 2.0**20


class Peaks(NamedTuple):
    """Most bytes that live while losses and gradients are computed, which grow with the images, and in the update."""

    gradients: int
    update: int


def bench_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Memory of a training step by configuration, computed: how many images fit on a GPU of 8, 16, 24 or 80 GiB."""
    rows = []
    for name in arguments.configs or CONFIGS:
        config = load_config(config_file(name), [*(arguments.keys or []), "model.encoder.weights=none"])
        words = config.vocab.size or arguments.vocabulary
        rows.append({"name": name} | memory_of(config, words, arguments.images))
    return {"rows": rows, "reserve_gib": RESERVE_GIB, "vocabulary": arguments.vocabulary}


def memory_of(config: Config, vocabulary: int, images: int) -> Row:
    """Count a step's memory and operations, from steps of `images` and of twice as many."""
    few, many = (peaks_of_step(config, vocabulary, count) for count in (images, 2 * images))
    per_image = (many.gradients - few.gradients) / images
    fixed = max(few.gradients - images * per_image, many.update)
    with torch.device("meta"):
        model = Captioner(config.model, vocabulary)
    trainable, frozen = parameter_counts(model)
    cells, length = math.prod(model.encoder.grid(config.data.image_size)), config.data.max_tokens + 1
    shape = (vocabulary, cells, model.encoder.width)
    decoder = training_operations(config.model.decoder, *shape, 1, config.data.captions_per_image * length)
    fits = {f"fit_{gib}": int((GIB * (gib - RESERVE_GIB) - fixed) // per_image) for gib in GPUS_GIB}
    return {
        "trainable": trainable,
        "frozen": frozen,
        "fixed_gib": round(fixed / GIB, 2),
        "mib_an_image": round(per_image / MIB, 1),
        **fits,
        "decoder_gflop_an_image": round(decoder / 1e9, 1),
        "encoder_gflop_an_image": round(encoder_operations(model.encoder, config.data.image_size) / 1e9, 1),
    }


def encoder_operations(encoder: Encoder, image_size: int) -> float:
    """Count the forward pass of an encoder on torch's `meta` device over one image."""
    encoder.eval()
    features = torch.empty(1, 3, image_size, image_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for part in encoder.parts:
            features = part.run(features)
    return float(counter.get_total_flops())


def peaks_of_step(config: Config, vocabulary: int, images: int) -> Peaks:
    """Count the second step, which has the optimiser's moments, as the engine takes it whose steps are captured."""
    cpu = torch.device("cpu")
    train = config.train.model_copy(update={"precision": "bf16"} if config.train.precision == "fp16" else {})
    torch.manual_seed(0)
    objective = CrossEntropy(Captioner(config.model, vocabulary), train.model_copy(update={"compile": "off"}))
    engine = CapturedEngine(config.engine, objective, train, config.optim, World(0, 1, 0, cpu))
    side, captions = config.data.image_size, config.data.captions_per_image
    images_BCHW = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    tokens_BKT = random_tokens((images, captions, config.data.max_tokens + 2), vocabulary, cpu)
    batch = Batch(images_BCHW.contiguous(memory_format=torch.channels_last), tokens_BKT, torch.arange(images))
    step = step_of(engine, batch)
    with LiveTensors([*objective.parameters(), *objective.buffers(), *batch, engine.gradient]) as tensors:
        step()
        peaks = []
        update = engine.step

        def counted(rate: Tensor) -> StepResult:
            peaks.append(tensors.turn())
            return update(rate)

        engine.step = counted  # type: ignore[method-assign]
        tensors.turn()
        step()
        return Peaks(peaks[0], tensors.turn())
