"""The order of one set's samples: a pure function of a key and of the shard sizes.

A pass is one time through the set. Its shards are permuted and cut into blocks; the samples of a block are permuted
among themselves. A position counts samples in that order. `imgcap/data/plan.py` has an example.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np

from imgcap.data.keyed_random import generator

ORDER_VERSION = 1


class EpochOrder:
    """The order of one pass, keyed by (seed, pass), for a set that is mixed in by (seed, its number, pass).

    One block of everything (`block=None`) mixes best; smaller ones bound the shards that must be at hand, and the
    memory: of the samples, only the blocks asked for last are held.
    """

    KEPT = 2  # blocks: a batch may reach from one into the next

    def __init__(self, key: tuple[int, ...], shard_counts: Sequence[int], block: int | None = None):
        self.key = key
        self._counts = np.asarray(shard_counts, np.int64)
        self._ends_of_shards = np.cumsum(self._counts)
        self._random = generator(*key, ORDER_VERSION)
        shards = self._random.permutation(len(self._counts))
        size = block or max(len(shards), 1)
        self.blocks = [shards[first : first + size] for first in range(0, len(shards), size)]
        self.ends = np.cumsum([self._counts[members].sum() for members in self.blocks], dtype=np.int64)
        self._samples: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def block_at(self, position: int) -> int:
        """The number of the block that holds a position."""
        return int(np.searchsorted(self.ends, position, side="right"))

    def start(self, number: int) -> int:
        """The position of a block's first sample."""
        return int(self.ends[number - 1]) if number else 0

    def samples(self, number: int) -> np.ndarray:
        """The samples of a block in their order, int64."""
        if number not in self._samples:
            while len(self._samples) >= self.KEPT:
                self._samples.pop(next(iter(self._samples)))
            self._samples[number] = self._permuted(number)
        return self._samples[number]

    def between(self, start: int, stop: int) -> np.ndarray:
        """The samples at the positions [start, stop), int64."""
        pieces = []
        while start < stop:
            number = self.block_at(start)
            end = min(stop, int(self.ends[number]))
            first = self.start(number)
            pieces.append(self.samples(number)[start - first : end - first])
            start = end
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    def _permuted(self, number: int) -> np.ndarray:
        members = self.blocks[number]
        counts = self._counts[members]
        firsts = np.repeat(self._ends_of_shards[members] - counts, counts)
        within = np.arange(len(firsts)) - np.repeat(np.cumsum(counts) - counts, counts)
        # The first block goes on with the shards' generator: that is the order of 0.1.0, which had one block only.
        random = generator(*self.key, ORDER_VERSION, number) if number else deepcopy(self._random)
        return random.permutation(firsts + within)


class EndlessOrder:
    """The order over all passes of a set, one behind the other: position p is in pass p // samples."""

    def __init__(self, key: tuple[int, ...], shard_counts: Sequence[int], block: int | None = None):
        self.key, self.shard_counts, self.block = key, tuple(shard_counts), block
        self.samples = sum(shard_counts)
        self._held: EpochOrder | None = None

    def epoch(self, number: int) -> EpochOrder:
        """The order of a pass; that asked for last is held."""
        key = (*self.key, number)
        if self._held is None or self._held.key != key:
            self._held = EpochOrder(key, self.shard_counts, self.block)
        return self._held

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The passes and the samples at the positions [start, stop), both int64."""
        passes, samples = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        while start < stop:
            number, within = divmod(start, self.samples)
            count = min(stop - start, self.samples - within)
            passes.append(np.full(count, number))
            samples.append(self.epoch(number).between(within, within + count))
            start += count
        return np.concatenate(passes), np.concatenate(samples)

    def blocks(self, position: int, count: int) -> list[tuple[int, int]]:
        """List the block that holds a position and those behind it, `count` in all, as (pass, number in it)."""
        number, within = divmod(position, self.samples)
        order = self.epoch(number)
        block = order.block_at(within)
        each = len(order.blocks)
        return [(number + later // each, later % each) for later in range(block, block + count)]
