"""How far a training step scales, calculated: gradients of measured sizes over networks of given speeds.

Nothing here is a measurement of a network. An all-reduce takes what NCCL's own tuning model says (src/graph/tuning.cc
of NVIDIA/nccl at b647562; ring in protocol Simple, tree in LL128). Inside of a host a ring gets 370 GB/s of NVLink's
450 in each direction (H100; NVIDIA/nccl-tests, issue 212). Not counted: the casts to bfloat16 and back, the step's
own counts (a few bytes), ranks that wait for a slower one, what an exchange takes from kernels beside it, NVLink SHARP.
"""

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imgcap.config.model import AttentionLSTMConfig, EncoderConfig, ModelConfig
from imgcap.models.captioner import Captioner
from imgcap.models.losses import caption_loss
from tools.bench.decoder import CELLS, WIDTH, random_tokens

GOOD = 0.9  # efficiency from which on it counts as scaling
HOST = 8  # GPUs
LARGEST = 1024  # GPUs that are looked at
BUCKETS_MB = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0)
WORDS, CAPTIONS, TOKENS, PIXELS = 7000, 5, 24, 224
DECODER = AttentionLSTMConfig(output="deep")
FORMATS = {"fp32": 4, "bf16": 2}  # bytes of a number
US = 1e-6
RING_BASE, RING_INSIDE, RING_BETWEEN = 8.4 * US, 3.4 * US, 14.0 * US  # of a call, a hop in a host, one between hosts
TREE_BASE, TREE_INSIDE, TREE_BETWEEN, TREE_SHARE = 14.0 * US, 1.25 * US, 8.5 * US, 0.92 * 120 / 128
ETHERNET_HOP = 30.0 * US  # assumed: a message through the kernel's TCP
OPTIONS = {
    "eager-ms": (45.3, "the decoder's step, launched kernel by kernel"),
    "replayed-ms": (16.4, "the same kernels as a CUDA graph"),
    "target-ms": ([8.0, 5.0], "what a captured step is meant to take: not measured"),
    "whole-ms": (110.6, "a step in which all of ResNet-50 trains"),
    "nvlink": (370.0, "GB/s that a ring gets inside of a host"),
    "infiniband": (400.0, "Gbit/s of a GPU's adapter"),
    "ethernet": (25.0, "Gbit/s of a host, for all of its GPUs"),
    "share": (0.9, "of an adapter's rate that arrives"),
    "gpus": [2, 8, 64],
    "bucket-mb": (25.0, "engine.bucket_mb"),
    "images": (2, "of the backward that shows when each gradient is there"),
}


class Gradients(NamedTuple):
    """Gradients that become ready together: how many numbers, and when, as a share of forward and backward."""

    numbers: int
    ready: float


@dataclass(frozen=True)
class Network:
    """GPUs and what joins them: bytes a second of a ring inside of a host and between hosts; seconds of a hop there."""

    gpus: int
    hosts: int
    inside: float
    between: float
    hop: float

    @property
    def bandwidth(self) -> float:
        """Bytes a second that a ring over all GPUs gets: those of its slowest link."""
        return self.inside if self.hosts == 1 else min(self.inside, self.between)


def sent_bytes(gpus: int, size: float) -> float:
    """Bytes that each GPU sends where a ring sums `size` bytes over all of them (Patarasuk and Yuan 2009)."""
    return 2 * (gpus - 1) / gpus * size


def all_reduce_seconds(network: Network, size: float) -> float:
    """Time to sum `size` bytes over all GPUs: between hosts the faster of a ring and a double binary tree."""
    gpus, hosts = network.gpus, network.hosts
    if gpus == 1:
        return 0.0
    between = 0 if hosts == 1 else 2 * hosts
    hops = (2 * (gpus - 1) - between) * RING_INSIDE + between * max(RING_BETWEEN, network.hop)
    ring = RING_BASE + max(hops, 0.0) + sent_bytes(gpus, size) / network.bandwidth
    if hosts == 1:
        return ring
    up = (gpus / hosts - 1) * TREE_INSIDE + math.log2(hosts) * max(TREE_BETWEEN, network.hop)
    return min(ring, TREE_BASE + 2 * up + 2 * size / (TREE_SHARE * network.bandwidth))


def in_buckets(gradients: Iterable[Gradients], limit: float) -> list[Gradients]:
    """Gradients in the order in which they become ready, as DDP's buckets: each closed by what makes it `limit` bytes.

    A bucket is ready with its last gradient, and counted in float32 whatever format is sent.
    """
    buckets, numbers = [], 0
    ordered = sorted(gradients, key=lambda each: each.ready)
    for each in ordered:
        numbers += each.numbers
        if 4 * numbers >= limit or each is ordered[-1]:
            buckets.append(Gradients(numbers, each.ready))
            numbers = 0
    return buckets


def exposed_seconds(network: Network, buckets: Sequence[Gradients], step: float, number_bytes: int) -> float:
    """Time for which a step of `step` seconds waits after its backward for buckets that are exchanged one by one."""
    free = 0.0
    for bucket in buckets:
        free = max(free, bucket.ready * step) + all_reduce_seconds(network, bucket.numbers * number_bytes)
    return max(free - step, 0.0)


def at_the_end(gradients: Iterable[Gradients]) -> list[Gradients]:
    """One bucket of all gradients after the backward: what a captured step exchanges."""
    return [Gradients(sum(each.numbers for each in gradients), 1.0)]


def efficiency(step: float, exposed: float, accumulated: int = 1) -> float:
    """Share of the time in which GPUs compute, with so many micro-batches of `step` seconds to an exchange."""
    return accumulated * step / (accumulated * step + exposed)


def micro_batches_for(step: float, exposed: float, wanted: float = GOOD) -> int:
    """The fewest micro-batches to an exchange with which the wanted efficiency is reached."""
    return max(1, math.ceil(wanted / (1 - wanted) * exposed / step - 1e-9))


@dataclass(frozen=True)
class Way:
    """A model's way to train: when its gradients are ready, and seconds of a step on one GPU."""

    name: str
    gradients: Sequence[Gradients]
    step: float
    overlap: bool

    def buckets(self, bucket_mb: float) -> list[Gradients]:
        return in_buckets(self.gradients, bucket_mb * 2**20) if self.overlap else at_the_end(self.gradients)

    def exposed(self, network: Network, bucket_mb: float, number_bytes: int) -> float:
        return exposed_seconds(network, self.buckets(bucket_mb), self.step, number_bytes)


def networks(arguments: argparse.Namespace) -> dict[str, dict[int, Network]]:
    """Kinds of networks by their number of GPUs: NVLink in one host, or hosts of one or eight GPUs that are joined."""
    numbers = sorted({*arguments.gpus, *(2**power for power in range(1, LARGEST.bit_length()))})
    inside = arguments.nvlink * 1e9
    adapter, line = (arguments.share * rate * 1e9 / 8 for rate in (arguments.infiniband, arguments.ethernet))
    found: dict[str, dict[int, Network]] = {
        "NVLink": {gpus: Network(gpus, 1, inside, math.inf, 0.0) for gpus in numbers if gpus <= HOST}
    }
    for name, of_host, hop in (("InfiniBand", [adapter, HOST * adapter], 0.0), ("Ethernet", [line] * 2, ETHERNET_HOP)):
        for each, between in zip((1, HOST), of_host, strict=True):
            hosts = {gpus: math.ceil(gpus / each) for gpus in numbers}
            joined = {gpus: Network(gpus, hosts[gpus], inside, between, hop) for gpus in numbers}
            found[f"{name}, {each} a host"] = joined
    return found


def bench_exchange(arguments: argparse.Namespace) -> dict[str, Any]:
    """How far training scales over several networks, calculated from a step's time on one GPU."""
    decoder, whole = (ready_gradients(trains, arguments.images) for trains in ("none", "all"))
    ways = [
        Way("decoder, eager", decoder, arguments.eager_ms / 1e3, overlap=True),
        Way("decoder, replayed", decoder, arguments.replayed_ms / 1e3, overlap=False),
        *(Way("decoder, target", decoder, target / 1e3, overlap=False) for target in arguments.target_ms),
        Way("ResNet-50 and decoder, eager", whole, arguments.whole_ms / 1e3, overlap=True),
    ]
    joined = networks(arguments)
    rows = [
        _row(way, kind, joined[kind], gpus, arguments.bucket_mb)
        for way in ways
        for kind in joined
        for gpus in arguments.gpus
        if gpus in joined[kind] and (kind == "NVLink" or joined[kind][gpus].hosts > 1)
    ]
    sizes = {name: sum(each.numbers for each in model) for name, model in (("decoder", decoder), ("whole", whole))}
    return {"rows": rows, "formats": list(FORMATS), "parameters": sizes}


def _row(way: Way, kind: str, by_gpus: dict[int, Network], gpus: int, bucket_mb: float) -> dict[str, Any]:
    """What a way costs over a network: of each number a pair, with gradients in float32 and in bfloat16."""
    network = by_gpus[gpus]
    exposed = [way.exposed(network, bucket_mb, size) for size in FORMATS.values()]
    alone = [exposed_seconds(network, at_the_end(way.gradients), way.step, size) for size in FORMATS.values()]
    row: dict[str, Any] = {
        "name": f"{way.name}, {1e3 * way.step:g} ms, {kind}, {gpus} GPUs",
        "waits_ms": [round(1e3 * seconds, 2) for seconds in exposed],
        "efficiency": [round(efficiency(way.step, seconds), 3) for seconds in exposed],
        "micro_batches": [micro_batches_for(way.step, seconds) for seconds in exposed],
        "scales_to": [_scales_to(way, by_gpus, bucket_mb, size) for size in FORMATS.values()],
    }
    if way.overlap:  # a captured step, which hides nothing, has to be faster than this one by more than what is hidden
        row["hidden_ms"] = [round(1e3 * (one - other), 2) for one, other in zip(alone, exposed, strict=True)]
        row["bucket_mb"] = [_best_bucket(way, network, bucket_mb, size) for size in FORMATS.values()]
    return row


def _best_bucket(way: Way, network: Network, usual: float, number_bytes: int) -> float:
    """The size of bucket with which a step waits least, to a tenth of a millisecond; of equals the nearest to usual."""
    waits = {mb: round(1e3 * way.exposed(network, mb, number_bytes), 1) for mb in BUCKETS_MB}
    return min(BUCKETS_MB, key=lambda mb: (waits[mb], abs(mb - usual)))


def _scales_to(way: Way, by_gpus: dict[int, Network], bucket_mb: float, number_bytes: int) -> int:
    """The most GPUs of a network up to which every number of them is used well."""
    most = 1
    for gpus, network in by_gpus.items():
        if efficiency(way.step, way.exposed(network, bucket_mb, number_bytes)) < GOOD:
            break
        most = gpus
    return most


def ready_gradients(trains: Any, images: int) -> list[Gradients]:
    """Train a ResNet-50 captioner on one batch and note when each gradient is ready, as a share of the time.

    With `trains="none"` its decoder trains on ready features.
    """
    torch.manual_seed(0)
    model = Captioner(ModelConfig(encoder=EncoderConfig(weights=None, train=trains), decoder=DECODER), WORDS).train()
    images_BCHW = torch.randint(256, (images, 3, PIXELS, PIXELS), dtype=torch.uint8)
    read = torch.randn(images, CELLS, WIDTH).relu() if trains == "none" else images_BCHW
    tokens_BKT = random_tokens((images, CAPTIONS, TOKENS), WORDS, torch.device("cpu"))
    moments: dict[Tensor, float] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda each: moments.update({each: time.perf_counter()}))
    for _ in range(2):  # the first is a warm-up
        began = time.perf_counter()
        readout_BKTR, attention_BKTP = model(read, tokens_BKT)
        caption_loss(readout_BKTR, model.decoder.output, tokens_BKT, 0.1, attention_BKTP, 1.0).total.backward()
        seconds = time.perf_counter() - began
    return [Gradients(parameter.numel(), (moment - began) / seconds) for parameter, moment in moments.items()]
