"""The order of samples: a pure function of the seed, the epoch and the shard manifest.

Global batch s of an epoch is positions [s·G, (s+1)·G) of that epoch's order, whatever the number of
ranks, workers or micro-batches; it is cut contiguously over ranks, then over accumulation steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from imgcap.errors import UserError

PLAN_VERSION = 1


class MicroBatch(NamedTuple):
    """The samples that one rank sees in one forward: N indices, weight 0 for the padding."""

    epoch: int
    indices_N: np.ndarray
    weight_N: np.ndarray


def order(seed: int, epoch: int, shard_counts: list[int], block: int | None = None) -> np.ndarray:
    """Permute the samples of an epoch: shards first, then samples within blocks of `block` shards.

    Returns the sample indices, int64, each exactly once. One block of everything (`block=None`)
    mixes best; smaller blocks bound how many shards must be at hand at a time.
    """
    random = _random(seed, epoch)
    starts = np.concatenate([[0], np.cumsum(shard_counts)]).astype(np.int64)
    pieces = []
    for members in _blocks(random, len(shard_counts), block):
        samples = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in members])
        pieces.append(random.permutation(samples))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def blocks(seed: int, epoch: int, shards: int, block: int | None = None) -> list[np.ndarray]:
    """Which shards are mixed with each other, in the order in which `order` reads them."""
    return _blocks(_random(seed, epoch), shards, block)


def _random(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, PLAN_VERSION])))


def _blocks(random: np.random.Generator, shards: int, block: int | None) -> list[np.ndarray]:
    permuted = random.permutation(shards)
    return [permuted[first : first + (block or shards)] for first in range(0, shards, block or max(shards, 1))]


@dataclass
class Plan:
    """Which samples make each step, for any rank. Steps count from 0 over the whole run."""

    seed: int
    shard_counts: list[int]
    global_batch: int
    manifest_sha256: str
    block: int | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def samples(self) -> int:
        return sum(self.shard_counts)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)

    def global_batch_at(self, step: int) -> MicroBatch:
        """The G samples of a step; the epoch's last batch is filled up with weight-0 repeats from its start."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:
            self._orders = {epoch: order(self.seed, epoch, self.shard_counts, self.block)}
        positions = position * self.global_batch + np.arange(self.global_batch)
        indices = self._orders[epoch][positions % self.samples]
        return MicroBatch(epoch, indices, (positions < self.samples).astype(np.float32))

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
            "plan_version": PLAN_VERSION,
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
