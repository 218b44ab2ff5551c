"""Samples a second from the page cache: without decoding beside plain webdataset, with it beside decoding alone."""

import argparse
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import webdataset
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.dataset import TrainDataset
from imgcap.data.loader import PlanSampler, TrainLoader
from imgcap.data.loader import reading as reading_from
from imgcap.data.order import EpochOrder
from imgcap.data.plan import Plan, split_batch
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary
from tools.bench.timing import Row, alternate, row, timed

OPTIONS = {
    "split": "train",
    "image-size": 64,
    "images": (32, "of a batch"),
    "processes": (2, "that decode"),
    "epochs": (20, "after each of which a worker's memory is read"),
}


def bench_reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reading samples, against plain webdataset, and its memory over many epochs.

    One process; ours reads in the shuffled order of an epoch, webdataset in the order of the tars.
    """
    reader = ShardReader(arguments.shards, arguments.split)
    order = EpochOrder((0, 0), reader.shard_counts)
    shuffled = order.between(0, len(order)).tolist()
    tars = [str(reader.place / shard.file) for shard in reader.shards]
    runs = {
        "plain webdataset, in order": lambda: sum(
            len(sample["jpg"]) for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
        ),
        "index reader, shuffled": lambda: sum(len(reader.read(i).jpeg) for i in shuffled),
    }
    seconds = alternate({name: timed(run, torch.device("cpu")) for name, run in runs.items()}, arguments.repeats)
    rows: list[Row] = [row(name, values, len(reader), "samples") for name, values in seconds.items()]
    plain, ours = (statistics.median(values) for values in seconds.values())
    decoded, decoding_share = _decoding(reader, shuffled, arguments)
    return {
        "rows": rows + decoded,
        "ratio": round(plain / ours, 2),
        "share_of_decoding_alone": decoding_share,
        "worker_mib_after_each_epoch": _memory(reader, arguments),
    }


def _decoding(reader: ShardReader, order: list[int], arguments: argparse.Namespace) -> tuple[list[Row], float]:
    """Several processes that decode in full size: JPEGs that are in memory, and samples through the index reader."""
    jpegs = [reader.read(i).jpeg for i in order]
    shares = [range(first, len(order), arguments.processes) for first in range(arguments.processes)]
    runs = {
        "decoding alone": lambda: _in_processes(lambda share: [_pixels(jpegs[i]) for i in share], shares),
        "index reader and decoding": lambda: _in_processes(
            lambda share: [_pixels(reader.read(order[i]).jpeg) for i in share], shares
        ),
    }
    seconds = alternate(runs, arguments.repeats)
    alone, read = (statistics.median(values) for values in seconds.values())
    return [row(name, values, len(order), "samples") for name, values in seconds.items()], round(alone / read, 3)


def _in_processes(work: Callable[[range], object], shares: list[range]) -> float:
    """Seconds until the last of several processes is done with its share, from when all were there."""
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(len(shares) + 1)

    def run(share: range) -> None:
        begin.wait()
        work(share)

    processes = [context.Process(target=run, args=(share,)) for share in shares]
    for process in processes:
        process.start()
    begin.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began


def _pixels(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _memory(reader: ShardReader, arguments: argparse.Namespace) -> list[int]:
    """Memory of one worker of the training loader, its own alone (USS), in MiB after each epoch."""
    import psutil

    data = DataConfig(image_size=arguments.image_size, augment="off", workers=1)
    vocabulary = Vocabulary.build(TokenCounts.load(reader.place).counts)
    plan = Plan(0, reader.shard_counts, arguments.images, reader.manifest_sha256)
    accumulation = split_batch(arguments.images, None, 1)
    steps = plan.steps_per_epoch
    sampler = PlanSampler(plan, 0, 1, accumulation, 0, arguments.epochs * steps)
    loader = TrainLoader(TrainDataset(reader, vocabulary, data, 0), sampler, 1, pin_memory=False)
    found = []
    with reading_from(loader) as batches:
        for number, _ in enumerate(batches, start=1):
            if number % steps == 0:
                (worker,) = multiprocessing.active_children()
                found.append(round(psutil.Process(worker.pid).memory_full_info().uss / 2**20))
    return found
