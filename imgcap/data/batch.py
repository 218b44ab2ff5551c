"""Items into a batch, and the hash by which equal batches are known."""

import numpy as np
import torch
from torch.utils.data import get_worker_info

from imgcap.data.dataset import NO_IMAGE, Item
from imgcap.types import PAD, Batch

HASH_MODULUS = 1 << 63


class Collate:
    """Items into a batch, channels last. A loader's worker writes images into shared buffers, which it uses in turn.

    Fresh shared memory costs more than the copy into it: the system clears each page when it is first touched. A
    batch is good until its worker has begun `buffers` later ones, so there must be more buffers than batches that
    the loader reads ahead and the trainer holds together.
    """

    def __init__(self, buffers: int):
        self.buffers = buffers
        self.pool: list[torch.Tensor] = []
        self.made = 0

    def __call__(self, items: list[Item]) -> Batch:
        images = [item.image_CHW.permute(1, 2, 0) for item in items]
        shape = (len(images), *images[0].shape)
        images_BHWC = torch.stack(images, out=self._buffer(shape)) if get_worker_info() else torch.stack(images)
        return Batch(
            images_BCHW=images_BHWC.permute(0, 3, 1, 2),
            tokens_BKT=torch.stack([item.tokens_KT for item in items]),
            weight_B=torch.tensor([item.weight for item in items], dtype=torch.float32),
            image_ids=torch.tensor([item.image_id for item in items], dtype=torch.int64),
        )

    def _buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        if not self.pool or self.pool[0].shape != shape:
            self.pool = [torch.empty(shape, dtype=torch.uint8).share_memory_() for _ in range(self.buffers)]
        self.made += 1
        return self.pool[self.made % self.buffers]


def target_count(batch: Batch) -> int:
    """How many tokens the batch asks the model to predict: all but <sos> and <pad>."""
    return int((batch.tokens_BKT[..., 1:] != PAD).sum())


def damaged_count(batch: Batch) -> int:
    return int((batch.image_ids == NO_IMAGE).sum())


def batch_hash(batch: Batch, epoch: int) -> int:
    """The sum, modulo 2^63, of a stable hash of (image_id, epoch) over the samples of weight 1."""
    ids = batch.image_ids.numpy()[batch.weight_B.numpy() > 0].astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = _mix(ids ^ _mix(np.full_like(ids, epoch)))
        return int(mixed.sum(dtype=np.uint64) % np.uint64(HASH_MODULUS))


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
