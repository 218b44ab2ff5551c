"""The order of samples: a pure function of the seed, the epoch and the shard manifest.

Global batch s of an epoch is positions [s·G, (s+1)·G) of that epoch's order, whatever the number of
ranks, workers or micro-batches; it is cut contiguously over ranks, then over accumulation steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from imgcap.data.order import ORDER_VERSION, EpochOrder
from imgcap.errors import UserError


class MicroBatch(NamedTuple):
    """The samples that one rank sees in one forward: N indices, weight 0 for the padding."""

    epoch: int
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
    _orders: dict[int, EpochOrder] = field(default_factory=dict, repr=False)

    @cached_property
    def samples(self) -> int:
        return sum(self.shard_counts)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)

    def global_batch_at(self, step: int) -> MicroBatch:
        """The G samples of a step; an epoch's last batch is filled up with weight-0 repeats of its last block."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self.order(epoch)
        start = position * self.global_batch
        missing = max(start + self.global_batch - self.samples, 0)
        indices = order.between(start, min(start + self.global_batch, self.samples))
        if missing:  # other blocks than the last may be on this machine no more
            last = order.samples(order.block_at(self.samples - 1))
            indices = np.concatenate([indices, last[np.arange(missing) % len(last)]])
        weight = np.ones(self.global_batch, np.float32)
        weight[self.global_batch - missing :] = 0
        return MicroBatch(epoch, indices, weight)

    def order(self, epoch: int) -> EpochOrder:
        if epoch not in self._orders:
            self._orders = {epoch: EpochOrder(self.seed, epoch, self.shard_counts, self.block)}
        return self._orders[epoch]

    def micro_batches(self, step: int, rank: int, world_size: int, accumulation: int) -> Iterator[MicroBatch]:
        """The share of one rank in a step, in the order in which it accumulates."""
        epoch, indices, weight = self.global_batch_at(step)
        share = self.global_batch // world_size
        mine = slice(rank * share, (rank + 1) * share)
        for piece, piece_weight in zip(
            np.split(indices[mine], accumulation), np.split(weight[mine], accumulation), strict=True
        ):
            yield MicroBatch(epoch, piece, piece_weight)

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
            ("manifest_sha256", "shard manifest"),
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
