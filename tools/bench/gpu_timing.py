"""What the figures of `bench.py gpu` share: sizes, the place they are measured in, and how a call becomes a row."""

import gc
import os
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, LSTMConfig, TransformerConfig
from imgcap.ranks.world import World
from tools.bench.synthetic import synthetic_shards
from tools.bench.timing import Row, ceilings, row, timed, warm_up


class NotHere(Exception):
    """A figure that can't be measured here, with the reason."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything a figure measures."""

    images: tuple[int, ...]  # of a decoder's step; the second is that of the figures with one size
    captions: int
    tokens: int
    cells: int
    width: int
    hidden: int  # and width of embedding and attention
    vocabulary: int
    encoders: tuple[str, str]  # the first is that of whole steps
    encoded: int  # images that an encoder encodes at once
    image_size: int
    trained: int  # images of a whole step
    shard_images: int
    searched: tuple[int, ...]
    beam: int
    words: int  # of a caption that a search finds; one step more ends it
    steps: int  # of a repeat
    peers: int  # images

    @property
    def decoder(self) -> AttentionLSTMConfig:
        """Show, Attend and Tell with gate, mean initial state and deep output."""
        widths = {"embed_dim": self.hidden, "hidden_dim": self.hidden, "attention_dim": self.hidden}
        return AttentionLSTMConfig(**widths, output="deep")

    @property
    def kinds(self) -> dict[str, DecoderConfig]:
        """The other decoders, by their names in figures."""
        after = self.decoder.model_copy(update={"query": "after"})
        return {
            "query after, additive": after,
            "query after, dot": after.model_copy(update={"attention": "dot"}),
            "lstm": LSTMConfig(embed_dim=self.hidden, hidden_dim=self.hidden),
            "transformer": TransformerConfig(width=self.hidden, feedforward=4 * self.hidden),
        }


FULL = Sizes(
    images=(32, 128, 256),
    captions=5,
    tokens=24,
    cells=49,
    width=2048,
    hidden=512,
    vocabulary=7000,
    encoders=("resnet50", "resnet101"),
    encoded=256,
    image_size=224,
    trained=128,
    shard_images=1024,
    searched=(64, 512),
    beam=5,
    words=19,
    steps=8,
    peers=64,
)
TINY = Sizes(
    images=(1, 2, 3),
    captions=2,
    tokens=5,
    cells=4,
    width=512,
    hidden=16,
    vocabulary=60,
    encoders=("resnet18", "resnet34"),
    encoded=2,
    image_size=32,
    trained=4,
    shard_images=16,
    searched=(2, 3),
    beam=2,
    words=3,
    steps=1,
    peers=1,
)


@dataclass(frozen=True)
class Part:
    """Figures that are measured together, in so many seconds at most."""

    names: tuple[str, ...]
    measure: Callable[[], Iterable[Row]]  # a row for each name
    seconds: float = 60.0


@dataclass
class Bench:
    """Where and at which sizes figures are measured."""

    world: World
    sizes: Sizes
    precisions: Sequence[str]
    folder: Path  # for what a part writes, to be removed by the caller
    repeats: int = 5
    checkouts: Path | None = None

    def shards(self) -> Path:
        """Build the synthetic shards, once."""
        sizes, place = self.sizes, self.folder / "shards"
        if not place.exists():
            shape = (sizes.shard_images, sizes.image_size, sizes.captions, sizes.tokens - 2)
            synthetic_shards(self.folder, *shape, sizes.vocabulary)
        return place


def free_memory(device: torch.device) -> None:
    """Let go of what the last figure had, so that the peak of the next is its own."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Memory at most: of the GPU's allocator since `free_memory`, or of this process where there is no GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20), 2)


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Work:
    """What a call does: so many of a unit, and at least so many operations and bytes moved."""

    items: int
    unit: str
    precision: str
    operations: float
    moved: float = 0.0
    calls: int = 1  # of a repeat, timed together


def figure(bench: Bench, name: str, run: Callable[[], object], work: Work, **settings: Any) -> Row:
    """Time a call: `ms` and its range over the repeats, the first call's seconds, and those until all was warm."""
    device = bench.world.device
    once = timed(run, device)
    warm = [once() for _ in range(warm_up(device))]

    def repeat() -> None:
        for _ in range(work.calls):
            run()

    seconds = [timed(repeat, device)() / work.calls for _ in range(bench.repeats)]
    return entry(bench, name, seconds, work) | {
        "first_s": round(warm[0], 2),
        "warm_s": round(sum(warm), 2),
        "peak_gib": peak_gib(device),
        **settings,
    }


def entry(bench: Bench, name: str, seconds: list[float], work: Work) -> Row:
    """Make a row of a call's seconds, with the floor's milliseconds and how much of the floor's rate is reached."""
    floor = ceilings(bench.world.device).floor_ms(work.precision, work.operations, work.moved)
    found = row(name, seconds, work.items, work.unit)
    del found["range"]  # of the rates, which says the same as that of the milliseconds
    spread = {"ms_range": [round(1000 * min(seconds), 3), round(1000 * max(seconds), 3)]}
    return found | spread | {"floor_ms": floor, "of_floor": round(floor / found["ms"], 3), "precision": work.precision}
