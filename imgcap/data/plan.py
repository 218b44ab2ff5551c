"""The samples of each step: a pure function of the seed, the step and the shard manifest.

Global batch s of an epoch is positions [s·G, (s+1)·G) of that epoch's order, whatever the number of
ranks, workers or micro-batches; it is cut contiguously over ranks, then over accumulation steps.

Six images in shards of 2, 1 and 3: shard 0 holds images 0 and 1, shard 1 image 2, shard 2 images 3, 4 and 5.
Each epoch is another permutation of them.

>>> plan = Plan(seed=5, shard_counts=[2, 1, 3], global_batch=4, manifest_sha256="")
>>> [order] = plan.orders()
>>> [order.epoch(number).between(0, 6).tolist() for number in (0, 1)]
[[4, 0, 2, 5, 3, 1], [0, 3, 5, 2, 1, 4]]

An epoch's first global batch is the first four of these. Its last is filled up with itself, which counts for nothing.

>>> [plan.global_batch_at(step).indices_N.tolist() for step in (0, 1, 2, 3)]
[[4, 0, 2, 5], [3, 1, 3, 1], [0, 3, 5, 2], [1, 4, 1, 4]]
>>> plan.global_batch_at(1).padding_N.tolist()
[False, False, True, True]

Two ranks take half a batch each, here in two micro-batches of one image.

>>> [[part.indices_N.tolist() for part in plan.micro_batches(0, rank, 2, accumulation=2)] for rank in (0, 1)]
[[[4], [0]], [[2], [5]]]

In blocks of two shards, shards are permuted and samples mix within their block only.

>>> [order] = Plan(5, [2, 1, 3], 4, "", block=2).orders()
>>> [(shards.tolist(), order.epoch(0).samples(block).tolist()) for block, shards in enumerate(order.epoch(0).blocks)]
[([1, 0], [2, 0, 1]), ([2], [5, 3, 4])]

Mixed with a set of two images, one of them an epoch: these count on, as 6 and 7, and come in an order of their own,
whose pass 0 lasts two epochs.

>>> mixed = Plan(5, [2, 1, 3], 7, "", others=(Share(shard_counts=(2,), samples=1),))
>>> [mixed.global_batch_at(epoch).indices_N.tolist() for epoch in (0, 1, 2)]
[[4, 0, 6, 2, 5, 3, 1], [0, 3, 5, 2, 7, 1, 4], [6, 1, 3, 4, 0, 5, 2]]
>>> mixed.global_batch_at(2).passes_N.tolist()
[1, 2, 2, 2, 2, 2, 2]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from imgcap.data.mixture import Interleaving, Share
from imgcap.data.order import ORDER_VERSION, EndlessOrder
from imgcap.errors import UserError


class MicroBatch(NamedTuple):
    """The samples of a rank's forward pass: N indices, and which of them only fill an epoch's last batch up.

    `passes_N` counts how often all of a sample's set has been seen before: each pass augments it anew.
    """

    passes_N: np.ndarray
    indices_N: np.ndarray
    padding_N: np.ndarray


@dataclass
class Plan:
    """The plan of which samples make each step, for any rank. Steps count from 0 over the whole run."""

    seed: int
    shard_counts: list[int]
    global_batch: int
    manifest_sha256: str
    block: int | None = None
    others: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        self._shares = [sum(self.shard_counts), *(other.samples for other in self.others)]
        self._orders = self.orders()
        self._firsts = np.cumsum([0, *(order.samples for order in self._orders)])  # index of each set's first sample
        self._interleaving = Interleaving(self.seed, self._shares) if self.others else None
        self.samples = sum(self._shares)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)

    def global_batch_at(self, step: int) -> MicroBatch:
        """The G samples of a step; the last batch of an epoch is filled up with itself."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        drawn = self._between(epoch, start, min(start + self.global_batch, self.samples))
        padding_N = np.arange(self.global_batch) >= len(drawn[0])
        passes_N, indices_N = (np.resize(values_N, self.global_batch) for values_N in drawn)
        return MicroBatch(passes_N, indices_N, padding_N)

    def positions(self, step: int) -> list[int]:
        """The position up to which each set has been read before a step, over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._positions(epoch, position * self.global_batch)

    def orders(self) -> list[EndlessOrder]:
        """Make an order for each set, which shares nothing with the plan's own: another thread may have it."""
        own = EndlessOrder((self.seed,), self.shard_counts, self.block)
        others = enumerate(self.others, start=1)
        return [own, *(EndlessOrder((self.seed, number), set.shard_counts, set.block) for number, set in others)]

    def _positions(self, epoch: int, position: int) -> list[int]:
        before = [position] if self._interleaving is None else self._interleaving.before(epoch, position)
        return [epoch * share + int(count) for share, count in zip(self._shares, before, strict=True)]

    def _between(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Passes and samples at the positions [start, stop) of an epoch: each set is read on from where it stands."""
        ends = zip(self._orders, self._positions(epoch, start), self._positions(epoch, stop), strict=True)
        read = [order.between(begin, end) for order, begin, end in ends]
        if self._interleaving is None:
            return read[0]
        sets_N = self._interleaving.between(epoch, start, stop)
        passes_N, indices_N = np.zeros(len(sets_N), np.int64), np.zeros(len(sets_N), np.int64)
        for number, (passes, samples) in enumerate(read):
            passes_N[sets_N == number], indices_N[sets_N == number] = passes, samples + self._firsts[number]
        return passes_N, indices_N

    def micro_batches(self, step: int, rank: int, world_size: int, accumulation: int) -> Iterator[MicroBatch]:
        """Yield a rank's share of a step, in the order in which it accumulates."""
        share = self.global_batch // world_size
        mine = slice(rank * share, (rank + 1) * share)
        pieces = (np.split(values_N[mine], accumulation) for values_N in self.global_batch_at(step))
        yield from map(MicroBatch, *pieces)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint must say so that the next `step` sees the same samples after a resume."""
        return {
            "plan_version": ORDER_VERSION,
            "seed": self.seed,
            "epoch": step // self.steps_per_epoch,
            "step": step,
            "global_batch": self.global_batch,
            "block": self.block,
            "other_blocks": [share.block for share in self.others],
            "manifest_sha256": self.manifest_sha256,
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuse, by name, a checkpoint whose order of samples isn't this plan's."""
        mine = self.state(state["step"])
        for name, meant in (
            ("plan_version", "version of the sample order"),
            ("seed", "seed"),
            ("global_batch", "train.global_batch"),
            ("block", "data.block, or data.cache_gb that it follows from"),
            ("other_blocks", "block of data.also, which follows from data.cache_gb where its sets are remote"),
            ("manifest_sha256", "shard manifest, or other sets or weights in data.also"),
        ):
            if state.get(name, mine[name] if name == "other_blocks" else None) != mine[name]:  # 0.1.0 didn't say it
                raise UserError(
                    f"the checkpoint was made with another {meant} ({state.get(name)}, now {mine[name]}); "
                    "resume with the same one, choose another name=, or begin anew with --resume no"
                )


@dataclass(frozen=True)
class Accumulation:
    """Gradient accumulation on a rank: images of a forward pass, and forward passes of a step."""

    micro_batch: int
    steps: int


def split_batch(global_batch: int, micro_batch: int | None, world_size: int) -> Accumulation:
    """Share a global batch between ranks and accumulation steps; `UserError` where it doesn't divide."""
    share, rest = divmod(global_batch, world_size)
    if rest:
        raise UserError(
            f"train.global_batch={global_batch} can't be shared equally by {world_size} ranks; "
            f"the nearest that can is {max(round(global_batch / world_size), 1) * world_size}"
        )
    micro = min(micro_batch or share, share)
    if share % micro:
        divisors = [size for size in range(1, share + 1) if share % size == 0 and size <= micro]
        raise UserError(
            f"train.micro_batch={micro} does not divide a rank's share of {share} images "
            f"(train.global_batch={global_batch} over {world_size} ranks); the nearest that does is {divisors[-1]}"
        )
    return Accumulation(micro, share // micro)
