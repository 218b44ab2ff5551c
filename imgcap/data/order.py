"""The order of an epoch's samples, made a block of shards at a time: a pure function of seed, epoch and shard sizes."""

import numpy as np

ORDER_VERSION = 1


class EpochOrder:
    """Shards are permuted, cut into blocks of `block` shards, and the samples of each block permuted.

    One block of everything (`block=None`) mixes best; smaller ones bound the shards that must be at hand, and the
    memory: of the samples, only the blocks asked for last are held.
    """

    KEPT = 2  # blocks: a batch may reach from one into the next

    def __init__(self, seed: int, epoch: int, shard_counts: list[int], block: int | None = None):
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
