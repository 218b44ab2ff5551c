"""Every measurement by name: its options, and what runs it."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench import (
    building,
    captioning,
    decoder,
    decoding,
    exchange,
    gpu,
    loader,
    memory,
    parts,
    peer_beams,
    peers,
    planning,
    reading,
    rewards,
    saving,
    scaling,
    scoring,
    self_critical,
    training,
)


@dataclass(frozen=True)
class Measure:
    """A measurement, whose docstring is its help, and its options: by name their default, or type where there is none.

    A list takes several values, False is a switch, and a pair is a default with its help.
    """

    run: Callable[[argparse.Namespace], dict[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Callable[[argparse.ArgumentParser], object] = lambda parser: None  # what else there is
    shards: bool = False  # it takes a shard set
    in_all: bool = True  # False: it needs what only a user can give
    device: str | None = None  # where it runs, if only there
    speaks: bool = False  # it prints what it finds itself

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Give a parser the measurement's arguments."""
        if self.shards:
            parser.add_argument("shards", type=Path)
        self.arguments(parser)
        for name, given in self.options.items():
            default, meaning = given if isinstance(given, tuple) else (given, None)
            if default is False:
                parser.add_argument(f"--{name}", action="store_true", help=meaning)
                continue
            one, many = (default[0], "+") if isinstance(default, list) else (default, None)
            kind: dict[str, Any] = {"type": one} if isinstance(one, type) else {"type": type(one), "default": default}
            parser.add_argument(f"--{name}", help=meaning, nargs=many, **kind)


MEASURES = {
    "loader": Measure(loader.bench_loader, loader.OPTIONS, loader.arguments, shards=True, device="cpu"),
    "reading": Measure(reading.bench_reading, reading.OPTIONS, shards=True, device="cpu"),
    "build": Measure(building.bench_build, building.OPTIONS, building.arguments, in_all=False, device="cpu"),
    "plan": Measure(planning.bench_plan, planning.OPTIONS, device="cpu"),
    "encoder": Measure(parts.bench_encoder, parts.OPTIONS),
    "step": Measure(decoder.bench_step, decoder.STEP_OPTIONS),
    "beam": Measure(decoder.bench_beam, decoder.BEAM_OPTIONS),
    "decoding": Measure(decoding.bench_decoding, decoding.OPTIONS),
    "caption": Measure(captioning.bench_captioning, captioning.OPTIONS),
    "optimiser": Measure(parts.bench_optimiser),
    "checkpoint": Measure(parts.bench_checkpoint, device="cpu"),
    "saving": Measure(saving.bench_saving, saving.OPTIONS, shards=True),
    "train": Measure(training.bench_train, training.OPTIONS, shards=True),
    "self-critical": Measure(
        self_critical.bench_self_critical, self_critical.OPTIONS, self_critical.add_model, in_all=False
    ),
    "linear": Measure(training.bench_linear, training.LINEAR_OPTIONS),
    "scoring": Measure(scoring.bench_scoring, scoring.OPTIONS, shards=True, device="cpu"),
    "reward": Measure(rewards.bench_reward, rewards.OPTIONS, device="cpu"),
    "scaling": Measure(scaling.bench_scaling, scaling.OPTIONS, shards=True, device="cpu"),
    "exchange": Measure(exchange.bench_exchange, exchange.OPTIONS, device="cpu"),
    "memory": Measure(memory.bench_memory, memory.OPTIONS, in_all=False, device="cpu"),
    "gpu": Measure(gpu.bench_gpu, gpu.OPTIONS, in_all=False, speaks=True),
    "peers": Measure(peers.bench_peers, peers.OPTIONS, peers.arguments, in_all=False),
    "peer-beams": Measure(peer_beams.bench_peer_beams, peer_beams.OPTIONS, peer_beams.arguments, in_all=False),
}
