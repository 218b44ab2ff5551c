"""The training loader beside a bare loop that only reads, decodes and transforms, in as many processes."""

import argparse
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.augmentation import augmented_image
from imgcap.data.dataset import TrainDataset
from imgcap.data.loader import PlanSampler, TrainLoader
from imgcap.data.plan import Accumulation, MicroBatch, Plan
from imgcap.errors import UserError
from imgcap.pictures.opening import decode
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary
from tools.bench.timing import Row, alternate, row, timed

OPTIONS = {
    "split": "train",
    "workers": 2,
    "images": (32, "of a batch"),
    "image-size": 224,
    "samples": (12000, "of one repeat, over as many epochs as it takes"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--augment", choices=("off", "light", "strong"), default="light")


def bench_loader(arguments: argparse.Namespace) -> dict[str, Any]:
    """The loader, and its parts, against a bare loop that only reads, decodes and transforms."""
    if arguments.workers < 1:
        raise UserError("the loader is compared with processes of the same number; give --workers 1 or more")
    reader = ShardReader(arguments.shards, arguments.split)
    counts = TokenCounts.load(arguments.shards).counts
    data = DataConfig(image_size=arguments.image_size, augment=arguments.augment, workers=arguments.workers)
    dataset = TrainDataset(reader, Vocabulary.build(counts), data, seed=0)
    plan = Plan(0, reader.shard_counts, arguments.images, reader.manifest_sha256)
    steps = -(-arguments.samples // arguments.images)
    waits: list[list[float]] = []
    runs = {
        "bare loop": lambda: bare_loop(reader, data, steps * arguments.images),
        "loader": lambda: whole_loader(dataset, plan, data.workers, steps, waits),
    }
    seconds = alternate(runs, arguments.repeats)
    rows = [row(name, values, steps * arguments.images, "samples") for name, values in seconds.items()]
    rows += parts_of_a_sample(dataset, reader, data, arguments.repeats)
    ratio = statistics.median(seconds["bare loop"]) / statistics.median(seconds["loader"])
    ends = [repeat[step] for repeat in waits for step in range(plan.steps_per_epoch, steps, plan.steps_per_epoch)]
    every = [wait for repeat in waits for wait in repeat[1:]]
    return {
        "rows": rows,
        "ratio": round(ratio, 3),
        "wait_ms": round(1000 * statistics.median(every), 2),
        "wait_at_epoch_end_ms": round(1000 * statistics.median(ends), 2) if ends else None,
    }


def parts_of_a_sample(dataset: TrainDataset, reader: ShardReader, data: DataConfig, repeats: int) -> list[Row]:
    """Time one process, part after part; the last is all of them, with the captions encoded into the batch."""
    count, size = min(256, len(reader)), data.image_size
    jpegs = [reader.read(index).jpeg for index in range(count)]
    images = [decode(jpeg, size) for jpeg in jpegs]
    [batch] = dataset.shape(count).allocate(1)
    samples = MicroBatch(np.zeros(count, np.int64), np.arange(count), np.zeros(count, bool))
    parts: dict[str, Callable[[], object]] = {
        "read": lambda: [reader.read(index) for index in range(count)],
        "decode": lambda: [decode(jpeg, size) for jpeg in jpegs],
        "decode, full size (naive)": lambda: [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs],
        "transform": lambda: [augmented_image(image, size, data.augment, (0, 0, 0)) for image in images],
        "all, into a batch": lambda: dataset.write(samples, batch),
    }
    seconds = alternate({name: timed(part, torch.device("cpu")) for name, part in parts.items()}, repeats)
    return [row(f"one process: {name}", values, count, "samples") for name, values in seconds.items()]


def bare_loop(reader: ShardReader, data: DataConfig, samples: int) -> float:
    """Seconds that `workers` processes take to read, decode and transform so many samples among them."""
    start = time.perf_counter()
    share = -(-samples // data.workers)
    processes = [
        multiprocessing.get_context("fork").Process(target=read_samples, args=(reader, data, first, share))
        for first in range(0, samples, share)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    if any(process.exitcode for process in processes):
        raise UserError("the bare loop met a damaged sample; see which with tools/verify_shards.py --decode")
    return seconds


def read_samples(reader: ShardReader, data: DataConfig, first: int, count: int) -> None:
    torch.set_num_threads(1)
    size = data.image_size
    for position in range(first, first + count):
        index = position % len(reader)
        jpeg = reader.read(index).jpeg
        augmented_image(decode(jpeg, size), size, data.augment, (0, position // len(reader), index))


def whole_loader(dataset: TrainDataset, plan: Plan, workers: int, steps: int, waits: list[list[float]]) -> float:
    """Seconds from asking for the first batch to having the last; `waits` gets the wait for each batch."""
    sampler = PlanSampler(plan, 0, 1, Accumulation(plan.global_batch, 1), 0, steps)
    start = last = time.perf_counter()
    waits.append([])
    for _ in TrainLoader(dataset, sampler, workers, pin_memory=False):
        now = time.perf_counter()
        waits[-1].append(now - last)
        last = now
    return last - start
