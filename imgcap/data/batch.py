"""Items into a batch, and the hash by which equal batches are known."""

import numpy as np
import torch

from imgcap.data.dataset import NO_IMAGE, Item
from imgcap.types import PAD, Batch

HASH_MODULUS = 1 << 63


def collate(items: list[Item]) -> Batch:
    return Batch(
        images_BCHW=torch.stack([item.image_CHW for item in items]),
        tokens_BKT=torch.stack([item.tokens_KT for item in items]),
        weight_B=torch.tensor([item.weight for item in items], dtype=torch.float32),
        image_ids=torch.tensor([item.image_id for item in items], dtype=torch.int64),
    )


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
