"""Every measurement by name: its arguments, and what runs it."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.bench import (
    building,
    captioning,
    decoder,
    decoding,
    loader,
    parts,
    peer_beams,
    peers,
    planning,
    reading,
    saving,
    scaling,
    scoring,
    training,
)


@dataclass(frozen=True)
class Measure:
    help: str
    run: Callable[[argparse.Namespace], dict[str, Any]]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    shards: bool = False  # it takes a shard set
    in_all: bool = True  # False: it needs what only a user can give
    device: str | None = None  # where it runs, if only there


MEASURES = {
    "loader": Measure(
        "the loader, and its parts, against a bare loop",
        loader.bench_loader,
        loader.arguments,
        shards=True,
        device="cpu",
    ),
    "reading": Measure(
        "reading samples, against plain webdataset, and its memory over many epochs",
        reading.bench_reading,
        reading.arguments,
        shards=True,
        device="cpu",
    ),
    "build": Measure(
        "building shards of Flickr8k, against bare decoding and tokenising, and the memory of a large build",
        building.bench_build,
        building.arguments,
        in_all=False,
        device="cpu",
    ),
    "plan": Measure("the order of samples at any scale", planning.bench_plan, planning.arguments, device="cpu"),
    "encoder": Measure("the frozen encoder against torchvision's own", parts.bench_encoder, parts.encoder_arguments),
    "step": Measure("the decoder's training step in each precision", decoder.bench_step, decoder.step_arguments),
    "beam": Measure("batched beam search against one image at a time", decoder.bench_beam, decoder.beam_arguments),
    "decoding": Measure(
        "every option of decoding beside plain beam search", decoding.bench_decoding, decoding.arguments
    ),
    "caption": Measure(
        "pictures captioned in one call against a call each", captioning.bench_captioning, captioning.arguments
    ),
    "optimiser": Measure("the fused optimiser against a loop over tensors", parts.bench_optimiser),
    "checkpoint": Measure("saving and loading a checkpoint", parts.bench_checkpoint, device="cpu"),
    "saving": Measure("what saving costs the step", saving.bench_saving, saving.arguments, shards=True),
    "train": Measure(
        "the whole training step, its parts, and how flat it is", training.bench_train, training.arguments, shards=True
    ),
    "linear": Measure(
        "how a step's cost grows with images and captions", training.bench_linear, training.linear_arguments
    ),
    "scoring": Measure(
        "all metrics against pycocoevalcap", scoring.bench_scoring, scoring.arguments, shards=True, device="cpu"
    ),
    "scaling": Measure(
        "ranks that each have a core of their own", scaling.bench_scaling, scaling.arguments, shards=True, device="cpu"
    ),
    "peers": Measure(
        "other projects' training steps beside ours", peers.bench_peers, peers.arguments, in_all=False, device="cpu"
    ),
    "peer-beams": Measure(
        "other projects' beam searches beside ours",
        peer_beams.bench_peer_beams,
        peer_beams.arguments,
        in_all=False,
        device="cpu",
    ),
}
