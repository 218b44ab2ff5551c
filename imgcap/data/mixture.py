"""Mixing several shard sets in a run: how they share an epoch, and how they are read as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imgcap.data.keyed_random import generator
from imgcap.data.order import ORDER_VERSION
from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader
from imgcap.types import Sample

_CHUNK = 1 << 16  # positions of an epoch between which the sets are counted


@dataclass(frozen=True)
class Share:
    """The share of a mixed-in shard set in each epoch: its shards' sizes and how many of its samples come."""

    shard_counts: tuple[int, ...]
    samples: int
    block: int | None = None


class Interleaving:
    """The set that each position of an epoch draws from: a seeded permutation, `shares[j]` positions for each set j."""

    def __init__(self, seed: int, shares: Sequence[int]):
        self.seed, self.shares = seed, shares
        self._epoch = -1
        self._sets_N = np.zeros(0, np.uint8)
        self._before_CJ = np.zeros((1, len(shares)), np.int64)

    def between(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The number of the set at the positions [start, stop), uint8."""
        self._hold(epoch)
        return self._sets_N[start:stop]

    def before(self, epoch: int, position: int) -> np.ndarray:
        """Count the samples of each set that come before a position, int64."""
        self._hold(epoch)
        chunk, rest = divmod(position, _CHUNK)
        here = self._sets_N[position - rest : position]
        return self._before_CJ[chunk] + np.bincount(here, minlength=len(self.shares))

    def _hold(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._sets_N = np.repeat(np.arange(len(self.shares), dtype=np.uint8), self.shares)
        generator(self.seed, epoch, ORDER_VERSION, 1, 1).shuffle(self._sets_N)
        chunks = [self._sets_N[first : first + _CHUNK] for first in range(0, len(self._sets_N), _CHUNK)]
        counts_CJ = [np.bincount(chunk, minlength=len(self.shares)) for chunk in chunks]
        self._before_CJ = np.concatenate([np.zeros((1, len(self.shares)), np.int64), np.cumsum(counts_CJ, axis=0)])
        self._epoch = epoch


class MixedReader:
    """Shard sets read as one: the samples of each are counted on behind those of the set before."""

    def __init__(self, readers: Sequence[ShardReader]):
        assert readers, "a mixture is of something"
        self.readers = readers
        self._ends = np.cumsum([len(reader) for reader in readers])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def place(self) -> str:
        return " + ".join(str(reader.place) for reader in self.readers)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the first set, which the others have to go with."""
        return self.readers[0].manifest

    def read(self, i: int) -> Sample:
        """Read sample `i` of the mixture, as `ShardReader.read` does."""
        reader, within = self._of(i)
        return reader.read(within)

    def name(self, i: int) -> str:
        """Name sample `i` of the mixture for people, by its own set."""
        reader, within = self._of(i)
        return reader.name(within)

    def read_features(self, i: int) -> tuple[Sample, np.ndarray]:
        """Read sample `i` of the mixture without its picture, as `ShardReader.read_features` does."""
        reader, within = self._of(i)
        return reader.read_features(within)

    def _of(self, i: int) -> tuple[ShardReader, int]:
        number = int(np.searchsorted(self._ends, i, side="right"))
        if not 0 <= number < len(self.readers):
            raise IndexError(f"sample {i} of {len(self)} in {self.place}")
        return self.readers[number], i - int(self._ends[number - 1]) if number else i


def refuse_other_features(readers: Sequence[ShardReader]) -> None:
    """Raise `UserError` where sets hold features of different encoders: a batch has pictures, or features of one."""
    first, *others = readers
    for other in others:
        if other.manifest.features != first.manifest.features:
            raise UserError(
                f"{first.place} and {other.place} don't hold the same encoder's features; "
                "set data.features=false to read the pictures of both"
            )


def mixture_sha256(sha256: str, others: Mapping[str, float]) -> str:
    """Hash the identity of a first set and of others with their weights; a set alone keeps its own."""
    lines = [sha256, *(f"{other} {weight}" for other, weight in others.items())]
    return sha256_of_bytes("\n".join(lines).encode()) if others else sha256
