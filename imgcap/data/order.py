"""The order of an epoch's samples, made a block of shards at a time: a pure function of seed, epoch and shard sizes."""

from collections.abc import Sequence

import numpy as np

ORDER_VERSION = 1


class EpochOrder:
    """Shards are permuted, cut into blocks of `block` shards, and the samples of each block permuted.

    One block of everything (`block=None`) mixes best; smaller ones bound the shards that must be at hand, and the
    memory: of the samples, only the blocks asked for last are held.
    """

    KEPT = 2  # blocks: a batch may reach from one into the next

    def __init__(self, seed: int, epoch: int, shard_counts: Sequence[int], block: int | None = None):
        self.seed, self.epoch = seed, epoch
        counts = np.asarray(shard_counts, np.int64)
        self._ends_of_shards = np.cumsum(counts)
        self._counts = counts
        shards = self._random().permutation(len(counts))
        size = block or max(len(shards), 1)
        self.blocks = [shards[first : first + size] for first in range(0, len(shards), size)]
        self.ends = np.cumsum([counts[members].sum() for members in self.blocks], dtype=np.int64)
        self._samples: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def block_at(self, position: int) -> int:
        """The number of the block that holds a place of the order."""
        return int(np.searchsorted(self.ends, position, side="right"))

    def start(self, number: int) -> int:
        """The place of a block's first sample."""
        return int(self.ends[number - 1]) if number else 0

    def samples(self, number: int) -> np.ndarray:
        """The samples of a block in their order, int64."""
        if number not in self._samples:
            while len(self._samples) >= self.KEPT:
                self._samples.pop(next(iter(self._samples)))
            self._samples[number] = self._permuted(number)
        return self._samples[number]

    def between(self, start: int, stop: int) -> np.ndarray:
        """The samples at the places [start, stop), int64."""
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
        if number:
            return self._random(number).permutation(firsts + within)
        random = self._random()
        random.permutation(len(self._counts))  # the first block goes on behind the shards
        return random.permutation(firsts + within)

    def _random(self, *block: int) -> np.random.Generator:
        key = np.random.SeedSequence([self.seed, self.epoch, ORDER_VERSION, *block])
        return np.random.Generator(np.random.Philox(key))


class EndlessOrder:
    """The orders of a shard set's epochs one behind the other: place p is in pass p // samples over the set."""

    def __init__(self, seed: int, shard_counts: Sequence[int], block: int | None = None):
        self.seed, self.shard_counts, self.block = seed, tuple(shard_counts), block
        self.samples = sum(shard_counts)
        self._held: EpochOrder | None = None

    def epoch(self, number: int) -> EpochOrder:
        """The order of one pass; of them, that asked for last is held."""
        if self._held is None or self._held.epoch != number:
            self._held = EpochOrder(self.seed, number, self.shard_counts, self.block)
        return self._held

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The passes and the samples at the places [start, stop), both int64."""
        passes, samples = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        while start < stop:
            number, within = divmod(start, self.samples)
            count = min(stop - start, self.samples - within)
            passes.append(np.full(count, number))
            samples.append(self.epoch(number).between(within, within + count))
            start += count
        return np.concatenate(passes), np.concatenate(samples)

    def blocks(self, place: int, count: int) -> list[tuple[int, int]]:
        """The block that holds a place and those behind it, as (pass, number in it)."""
        number, within = divmod(place, self.samples)
        order = self.epoch(number)
        block = order.block_at(within)
        ahead = range(block, block + count)
        each = len(order.blocks)
        return [(number + later // each, later % each) for later in ahead]
