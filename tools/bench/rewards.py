"""The rewards of self-critical training at COCO's size, from references of drawn words.

Words are drawn by Zipf's law and by themselves, so that longer n-grams are more different ones than in real captions:
memory and time are above those of COCO. A sampled caption is a reference of its image with some words drawn anew.

Dimensions: N captions, L their longest length.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from imgcap.config.training import REWARDED
from imgcap.errors import UserError
from imgcap.evaluation.metrics.reward import Rewards, count_references
from imgcap.files.arrays import map_arrays, write_arrays
from imgcap.types import EOS, PAD, SPECIAL_TOKENS
from tools.bench.timing import alternate, row, timed

OPTIONS = {
    "references-of": (113_287, "images"),
    "references": (5, "of each"),
    "words": (10_000, "of the vocabulary"),
    "images": (128, "of a step"),
    "samples": (5, "captions of each image of a step"),
    "steps": (20, "that are timed together"),
    "processes": 2,
    "metrics": ([str], "rewarded, alike (default: CIDEr)"),
}
LENGTHS = (5, 10.5, 30)  # words of a caption: the fewest, the mean, the most
CHANGED = 0.2  # of a sample's words
MIB = 2.0**20

Batch = tuple[np.ndarray, np.ndarray]  # images_N and captions_NL


def bench_reward(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rewards of sampled captions at COCO's size: rate by threads and processes, memory, time to count references."""
    metrics = arguments.metrics or ["CIDEr"]
    if unknown := set(metrics) - set(REWARDED):
        raise UserError(f"no reward {sorted(unknown)[0]!r}; there are {', '.join(REWARDED)}")
    draw = Drawn(arguments)
    began = time.perf_counter()
    arrays = count_references(enumerate(draw.references()), end_token=True)
    counted = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches = [draw.batch(step) for step in range(arguments.steps)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rewards.safetensors"
        write_arrays(file, arrays)
        size = sum(array.nbytes for array in arrays.values())
        del arrays
        began = time.perf_counter()
        rewards = opened(file, metrics)
        opening = time.perf_counter() - began
        processor = [processor_seconds(rewards, batches) for _ in range(arguments.repeats)]
        seconds = in_turns(rewards, partial(opened, file, metrics), batches, arguments)
    captions = sum(len(images_N) for images_N, _ in batches)
    rows = [row(name, values, captions, "captions", seconds["1 thread"]) for name, values in seconds.items()]
    return {
        "rows": rows,
        "processor_us_a_caption": round(1e6 * statistics.median(processor) / captions, 1),
        "shared_mib": round(size / MIB, 1),
        "bytes_an_image": round(size / arguments.references_of),
        "counted_in_s": round(counted, 1),
        "opened_in_s": round(opening, 2),
        "mib_at_most_while_counting": round(most),
    }


def opened(file: Path, metrics: list[str]) -> Rewards:
    arrays = map_arrays(file)
    assert arrays is not None
    return Rewards(arrays, dict.fromkeys(metrics, 1.0), end_token=True)


def in_turns(
    rewards: Rewards, opens: Callable[[], Rewards], batches: list[Batch], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds for all batches: in a thread, in several that share them, in several processes that do."""
    several = arguments.processes
    shares = [batches[first::several] for first in range(several)]
    pools = [ProcessPoolExecutor(1, get_context("spawn"), prepare, (opens, share)) for share in shares]
    with ThreadPoolExecutor(several) as threads:

        def in_processes() -> None:
            for future in [pool.submit(reward_prepared) for pool in pools]:
                future.result()

        runs = {
            "1 thread": lambda: reward_all(rewards, batches),
            f"{several} threads": lambda: list(threads.map(partial(reward_all, rewards), shares)),
            f"{several} processes": in_processes,
        }
        try:
            timings = {name: timed(run, torch.device("cpu")) for name, run in runs.items()}
            return alternate(timings, arguments.repeats)
        finally:
            for pool in pools:
                pool.shutdown()


def reward_all(rewards: Rewards, batches: list[Batch]) -> None:
    for images_N, captions_NL in batches:
        rewards(images_N, captions_NL)


def processor_seconds(rewards: Rewards, batches: list[Batch]) -> float:
    """The processor's time for all batches, of which other work on the machine takes nothing."""
    began = time.process_time()
    reward_all(rewards, batches)
    return time.process_time() - began


_PREPARED: list[tuple[Rewards, list[Batch]]] = []  # of a process


def prepare(opens: Callable[[], Rewards], batches: list[Batch]) -> None:
    _PREPARED.append((opens(), batches))


def reward_prepared() -> None:
    reward_all(*_PREPARED[0])


class Drawn:
    """References of drawn words, and captions much like them."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        shares = 1 / np.arange(1.0, arguments.words + 1)
        self.shares = np.cumsum(shares) / shares.sum()
        draw = np.random.default_rng(0)
        few, mean, many = LENGTHS
        captions = arguments.references_of * arguments.references
        self.lengths = np.clip(draw.poisson(mean, captions), few, many)
        self.all_words = self.words(draw, int(self.lengths.sum()))
        self.ends = np.cumsum(self.lengths)

    def words(self, draw: np.random.Generator, count: int) -> np.ndarray:
        return np.searchsorted(self.shares, draw.random(count)) + len(SPECIAL_TOKENS)

    def caption(self, reference: int) -> np.ndarray:
        return self.all_words[self.ends[reference] - self.lengths[reference] : self.ends[reference]]

    def references(self) -> Iterator[list[list[int]]]:
        """The captions of each image."""
        each = self.arguments.references
        for first in range(0, len(self.lengths), each):
            yield [self.caption(reference).tolist() for reference in range(first, first + each)]

    def batch(self, step: int) -> Batch:
        """Captions of a step's images, each ended and padded."""
        draw = np.random.default_rng([1, step])
        images_N = np.repeat(
            draw.integers(self.arguments.references_of, size=self.arguments.images), self.arguments.samples
        )
        captions_NL = np.full((len(images_N), LENGTHS[2] + 1), PAD)
        for image, row_L in zip(images_N, captions_NL, strict=True):
            words = self.caption(image * self.arguments.references + draw.integers(self.arguments.references)).copy()
            changed = np.flatnonzero(draw.random(len(words)) < CHANGED)
            words[changed] = self.words(draw, len(changed))
            row_L[: len(words)], row_L[len(words)] = words, EOS
        return images_N, captions_NL
