"""What the plan costs at any scale, by simulation: a set of so many samples and shards, on so many ranks."""

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np

from imgcap.data.order import EpochOrder

BATCHES = 20  # that are looked at, spread over the epoch


OPTIONS = {
    "samples": 400_000_000,
    "tars": 40_000,
    "sample-kb": 30.0,
    "ranks": 1024,
    "ranks-per-node": 8,
    "batch": (16_384, "images of a step over all ranks"),
    "blocks": ([16, 64, 256, 1024, 4096], "shards of a block"),
}


def bench_plan(arguments: argparse.Namespace) -> dict[str, Any]:
    """The order of samples at any scale, for each block size.

    Memory and time of a rank's plan, how well a batch is mixed, and what a node must hold.
    """
    counts = [arguments.samples // arguments.tars] * arguments.tars
    shard_gb = counts[0] * arguments.sample_kb * 1e3 / 1e9
    rows = [_row(arguments, counts, shard_gb, block) for block in arguments.blocks]
    epoch_tb = shard_gb * arguments.tars / 1e3
    return {"rows": rows, "fetched_by_a_node_tb_an_epoch": round(epoch_tb, 2), "set_tb": round(epoch_tb, 2)}


def _row(arguments: argparse.Namespace, counts: list[int], shard_gb: float, block: int) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    order = EpochOrder((0, 0), counts, block)
    opened = time.perf_counter() - began
    began = time.perf_counter()
    order.samples(0)
    first = time.perf_counter() - began
    steps = len(order) // arguments.batch
    times, mixed, alike = [], [], []
    for step in np.linspace(0, steps - 1, BATCHES).astype(int):
        order.between(step * arguments.batch, step * arguments.batch + 1)  # its block is there already
        began = time.perf_counter()
        batch = order.between(step * arguments.batch, (step + 1) * arguments.batch)
        times.append(time.perf_counter() - began)
        shards = batch // counts[0]
        mixed.append(len(np.unique(shards)))
        alike.append(_distance(shards))
    held = sum(samples.nbytes for samples in order._samples.values())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    share = arguments.batch // arguments.ranks
    return {
        "block": block,
        "opened_s": round(opened, 4),
        "block_made_s": round(first, 4),
        "batch_ms": round(1000 * statistics.median(times), 3),
        "order_mb": round(held / 1e6, 1),
        "peak_grew_mb": round(grown, 1),
        "shards_of_a_batch": round(statistics.mean(mixed)),
        "distance_of_one_shard_s_samples": round(statistics.mean(alike), 1),
        "images_of_a_rank_a_step": share if share * arguments.ranks == arguments.batch else "unequal",
        "cache_of_a_node_gb": round(2 * block * shard_gb, 1),
        "steps_of_a_block": round(block * counts[0] / arguments.batch, 1),
    }


def _distance(shards: np.ndarray) -> float:
    """Places between one sample of a shard and the next of the same, on average over a batch."""
    order = np.argsort(shards, kind="stable")
    same = np.diff(shards[order]) == 0
    gaps = np.diff(order)[same]
    return float(gaps.mean()) if len(gaps) else float(len(shards))
