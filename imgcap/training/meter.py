"""Losses, counts and times of training since the last log: sums that stay on the device until somebody looks."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imgcap.data.batch import HASH_MODULUS, batch_hash, counted_ids, damaged_count, target_count
from imgcap.models.losses import Loss
from imgcap.ranks.collectives import begin_sum_across_ranks, sum_across_ranks
from imgcap.types import Batch


@dataclass(frozen=True)
class StepCounts:
    """Sums over all ranks for one global batch, int64: tokens, hash, images, damaged ones, ranks asked to stop."""

    sums: Tensor

    @classmethod
    def begin(cls, batches: list[Batch], epoch: int, stop: bool, device: torch.device) -> Callable[[], "StepCounts"]:
        """Begin to sum a step's counts over the ranks; what this returns waits for the sums."""
        local = [
            sum(target_count(batch) for batch in batches),
            sum(batch_hash(batch, epoch) for batch in batches) % HASH_MODULUS,
            sum(len(counted_ids(batch)) for batch in batches),
            sum(damaged_count(batch) for batch in batches),
            int(stop),
        ]
        wait = begin_sum_across_ranks(torch.tensor(local).to(device, non_blocking=True))
        return lambda: cls(wait())

    @property
    def tokens(self) -> Tensor:
        return self.sums[0].clamp(min=1)

    def asked_to_stop(self) -> bool:
        """Whether any rank was asked to stop; the same answer on all of them. Waits for the device."""
        return bool(self.sums[4] > 0)

    def values(self) -> dict[str, int]:
        """Numbers that the log shows; waits for the device."""
        _, hashed, images, damaged, _ = self.sums.tolist()
        names = ("train/batch_hash", "train/images", "data/images_skipped")
        return dict(zip(names, (hashed % HASH_MODULUS, images, damaged), strict=True))


class Meter:
    """Losses and times between two logs. Reading is the only thing that waits for the device."""

    def __init__(self, device: torch.device):
        self.device = device
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(4, dtype=precise, device=device)  # cross entropy, objective, tokens, skipped steps
        self.skipped_in_a_row = torch.zeros((), device=device)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Restart the clock, which leaves out of the rates what is no training: evaluation, saving."""
        self.started, self.waited, self.images = time.perf_counter(), 0.0, 0

    def add_loss(self, loss: Loss) -> None:
        self.sums[:3] += torch.stack([loss.cross_entropy, loss.total, loss.tokens.to(loss.total.dtype)]).detach()

    def drop_losses(self) -> None:
        """Forget the losses since the last log; not what was skipped, nor the clock."""
        self.sums[:3] = 0

    def add_step(self, skipped: Tensor, images: int) -> None:
        self.sums[3] += skipped
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * skipped
        self.images += images

    def state(self, is_main: bool) -> Tensor:
        """Sums of all ranks for a checkpoint. They move to rank 0, so that nothing counts twice."""
        skipped = self.sums[3].clone()
        total = sum_across_ranks(self.sums.clone())
        self.sums = total if is_main else torch.zeros_like(total)
        self.sums[3] = skipped
        return self.sums.clone().cpu()

    def load_state(self, sums: Tensor, is_main: bool) -> None:
        self.sums = sums.to(self.sums) if is_main else torch.zeros_like(self.sums)
        self.sums[3] = sums[3]

    def read(self) -> dict[str, float]:
        """Read the means since the last reading, over all ranks; then start anew."""
        skipped = float(self.sums[3])
        cross_entropy, objective, tokens, _ = sum_across_ranks(self.sums.clone()).tolist()
        seconds = time.perf_counter() - self.started
        values = {
            "train/loss": cross_entropy / max(tokens, 1),
            "train/objective": objective / max(tokens, 1),
            "train/skipped_steps": skipped,
            "perf/images_per_s": self.images / seconds,
            "perf/data_wait_share": self.waited / seconds,
            "perf/memory_gib": self._memory(),
        }
        self.sums.zero_()
        self.restart_clock()
        return values

    def _memory(self) -> float:
        """Peak memory so far, in GiB: of the GPU's allocator, or of this process where there is no GPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)
