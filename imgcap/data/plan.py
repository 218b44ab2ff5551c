"""The order of samples: a pure function of the seed, the epoch and the shard manifest.

Global batch s of an epoch is positions [s·G, (s+1)·G) of that epoch's order, whatever the number of
ranks, workers or micro-batches; it is cut contiguously over ranks, then over accumulation steps. Where sets are mixed,
an epoch holds each sample of the first once, and so many of each other as its share says, which go on from epoch to
epoch through an order of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from imgcap.data.mixture import Share, Turns
from imgcap.data.order import ORDER_VERSION, EndlessOrder
from imgcap.errors import UserError


class MicroBatch(NamedTuple):
    """The samples that one rank sees in one forward: N indices, weight 0 for the padding.

    The pass counts how often all of a sample's set has been seen before: augmentation is another in each.
    """

    passes_N: np.ndarray
    indices_N: np.ndarray
    weight_N: np.ndarray


@dataclass
class Plan:
    """Which samples make each step, for any rank. Steps count from 0 over the whole run."""

    seed: int
    shard_counts: list[int]
    global_batch: int
    manifest_sha256: str
    block: int | None = None
    others: tuple[Share, ...] = ()

    def __post_init__(self) -> None:
        own = sum(self.shard_counts)
        self._shares = [own, *(other.samples for other in self.others)]
        self._orders = [EndlessOrder(self.seed, self.shard_counts, self.block)]
        for number, other in enumerate(self.others, start=1):
            self._orders.append(EndlessOrder(self.seed + (number << 32), other.shard_counts, other.block))
        self._firsts = np.cumsum([0, *(order.samples for order in self._orders)])  # index of each set's first sample
        self._turns = Turns(self.seed, self._shares) if self.others else None
        self.samples = sum(self._shares)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)

    def global_batch_at(self, step: int) -> MicroBatch:
        """The G samples of a step; an epoch's last batch is filled up with itself, at weight 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        drawn = self._between(epoch, start, min(start + self.global_batch, self.samples))
        weight_N = np.zeros(self.global_batch, np.float32)
        weight_N[: len(drawn[0])] = 1
        passes_N, indices_N = (np.resize(values_N, self.global_batch) for values_N in drawn)
        return MicroBatch(passes_N, indices_N, weight_N)

    def places(self, step: int) -> list[int]:
        """How far each set has been read before a step, over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        before = [start] if self._turns is None else self._turns.before(epoch, start)
        return [epoch * share + int(count) for share, count in zip(self._shares, before, strict=True)]

    def orders(self) -> list[EndlessOrder]:
        """Of each set, for another thread: they share nothing with the plan's own."""
        return [EndlessOrder(order.seed, order.shard_counts, order.block) for order in self._orders]

    def _between(self, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Passes and samples at the places [start, stop) of an epoch."""
        if self._turns is None:
            return self._orders[0].between(epoch * self.samples + start, epoch * self.samples + stop)
        sets_N = self._turns.between(epoch, start, stop)
        before = self._turns.before(epoch, start)
        passes_N, indices_N = np.zeros(len(sets_N), np.int64), np.zeros(len(sets_N), np.int64)
        for number, order in enumerate(self._orders):
            mine = sets_N == number
            place = epoch * self._shares[number] + int(before[number])
            passes, samples = order.between(place, place + int(mine.sum()))
            passes_N[mine], indices_N[mine] = passes, samples + self._firsts[number]
        return passes_N, indices_N

    def micro_batches(self, step: int, rank: int, world_size: int, accumulation: int) -> Iterator[MicroBatch]:
        """The share of one rank in a step, in the order in which it accumulates."""
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
            ("manifest_sha256", "shard manifest, or other sets or weights in data.also"),
        ):
            if state.get(name) != mine[name]:
                raise UserError(
                    f"the checkpoint was made with another {meant} ({state.get(name)}, now {mine[name]}); "
                    "resume with the same one, or begin anew with --resume no"
                )


@dataclass(frozen=True)
class Accumulation:
    """How a global batch is cut: images of one forward, and forwards of one step."""

    micro_batch: int
    steps: int


def cut_batch(global_batch: int, micro_batch: int | None, world_size: int) -> Accumulation:
    """Share a global batch between ranks and accumulation steps; refuse what doesn't divide."""
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
