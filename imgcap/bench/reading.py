"""Samples a second from the page cache without decoding, beside plain sequential webdataset on the same shards."""

import argparse
import multiprocessing
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset

from imgcap.bench.timing import Row, alternate, row, timed
from imgcap.config.schema import DataConfig
from imgcap.data import EpochOrder, Plan, PlanSampler, TrainDataset, TrainLoader, cut_batch
from imgcap.data import reading as reading_from
from imgcap.shards import ShardReader, TokenCounts
from imgcap.text import Vocabulary


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--epochs", type=int, default=20, help="after each of which a worker's memory is read")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=32, help="of a batch")


def bench_reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process; ours in the shuffled order of an epoch, webdataset's in the order of the tars."""
    reader = ShardReader(arguments.shards, arguments.split)
    order = EpochOrder(0, 0, reader.shard_counts)
    shuffled = order.between(0, len(order)).tolist()
    tars = [str(reader.place / shard.file) for shard in reader.shards]
    runs = {
        "plain webdataset, in order": lambda: sum(len(sample["jpg"]) for sample in _plain(tars)),
        "index reader, shuffled": lambda: sum(len(reader.read(i).jpeg) for i in shuffled),
    }
    seconds = alternate({name: timed(run, torch.device("cpu")) for name, run in runs.items()}, arguments.repeats)
    rows: list[Row] = [row(name, values, len(reader), "samples") for name, values in seconds.items()]
    plain, ours = (statistics.median(values) for values in seconds.values())
    return {
        "rows": rows,
        "ratio": round(plain / ours, 2),
        "worker_mib_after_each_epoch": _memory(reader, arguments),
    }


def _plain(tars: list[str]) -> Iterator[dict[str, bytes]]:
    yield from webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)


def _memory(reader: ShardReader, arguments: argparse.Namespace) -> list[int]:
    """Of one worker of the training loader: what is its own alone (USS), in MiB, after each epoch."""
    import psutil

    data = DataConfig(image_size=arguments.image_size, augment="off", workers=1)
    vocabulary = Vocabulary.build(TokenCounts.load(reader.place).counts)
    plan = Plan(0, reader.shard_counts, arguments.images, reader.manifest_sha256)
    cut = cut_batch(arguments.images, None, 1)
    steps = plan.steps_per_epoch
    sampler = PlanSampler(plan, 0, 1, cut, 0, arguments.epochs * steps)
    loader = TrainLoader(TrainDataset(reader, vocabulary, data, 0), sampler, 1, pin_memory=False)
    found = []
    with reading_from(loader) as batches:
        for number, _ in enumerate(batches, start=1):
            if number % steps == 0:
                (worker,) = multiprocessing.active_children()
                found.append(round(psutil.Process(worker.pid).memory_full_info().uss / 2**20))
    return found
