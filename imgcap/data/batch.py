"""Memory for batches, what counts in them, and the hash by which equal batches are known."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch

from imgcap.ranks.memory import within_shared_memory
from imgcap.types import PAD, Batch

HASH_MODULUS = 1 << 63
NO_IMAGE = -(1 << 63)  # the image id of a sample that could not be read: no set's image has it (`as_image_id`)
PADDING = NO_IMAGE + 1  # of one that fills up an epoch's last batch


class BatchShape(NamedTuple):
    """The sizes of a micro-batch, the same throughout a run."""

    images: int
    image_size: int
    captions: int
    length: int
    features: tuple[int, int] | None = None  # cells and width, in place of pixels

    def allocate(self, count: int, shared: bool = False) -> list[Batch]:
        """Allocate `count` batches, in memory that other processes see too where it is `shared`."""
        tokens, ids = self.images * self.captions * self.length * 8, self.images * 8  # bytes
        sizes = [tokens, ids, -(-self._image_bytes // 8) * 8]  # filled up so that the next batch's int64 fit
        size, total = sum(sizes), count * sum(sizes)
        if shared:  # neither copied nor cleared: the system gives a page when it is first touched
            with within_shared_memory(total):
                block = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(total))
        else:
            block = torch.empty(total, dtype=torch.uint8)
        return [self._views(piece.split(sizes)) for piece in block.split(size)]

    @property
    def _image_bytes(self) -> int:
        each = 2 * self.features[0] * self.features[1] if self.features else 3 * self.image_size**2
        return self.images * each

    def _views(self, pieces: Sequence[torch.Tensor]) -> Batch:
        tokens, ids, pixels = pieces
        side, pixels = self.image_size, pixels[: self._image_bytes]
        if self.features:
            images = pixels.view(torch.float16).view(self.images, *self.features)
        else:
            images = pixels.view(self.images, side, side, 3).permute(0, 3, 1, 2)  # channels last in memory
        tokens_BKT = tokens.view(torch.int64).view(self.images, self.captions, self.length)
        return Batch(images, tokens_BKT, image_ids=ids.view(torch.int64))


@contextmanager
def page_locked(batches: list[Batch]) -> Iterator[None]:
    """Lock the memory of batches that `BatchShape.allocate` made, once: a GPU then copies each while others compute.

    Where the system doesn't let us, copies are slower and a warning says so.
    """
    memory, runtime = batches[0].tokens_BKT.untyped_storage(), torch.cuda.cudart()
    failed = int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes(), 0))
    if failed:
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # takes over the failure, which the next launch would report as its own
        warnings.warn(f"{memory.nbytes()} bytes of batches can't be page-locked (CUDA error {failed})", stacklevel=2)
        yield
        return
    try:
        yield
    finally:
        torch.cuda.synchronize()  # a copy may be under way
        runtime.cudaHostUnregister(memory.data_ptr())


def target_count(batch: Batch) -> int:
    """Count the tokens that the model is to predict: all but <sos> and <pad>."""
    return int((batch.tokens_BKT[..., 1:] != PAD).sum())


def damaged_count(batch: Batch) -> int:
    """Count the images that could not be read."""
    return int((batch.image_ids == NO_IMAGE).sum())


def counts(ids_B: np.ndarray) -> np.ndarray:
    """Which images of a batch count, by their ids: those that are neither padding nor damaged."""
    return (ids_B != NO_IMAGE) & (ids_B != PADDING)


def counted_ids(batch: Batch) -> np.ndarray:
    """The ids of a batch's images that count."""
    ids = batch.image_ids.numpy()
    return ids[counts(ids)]


def batch_hash(batch: Batch, epoch: int) -> int:
    """The sum, modulo 2^63, of a stable hash of (image_id, epoch) over the images that count."""
    ids = counted_ids(batch).astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = _mix(ids ^ _mix(np.full_like(ids, epoch)))
        return int(mixed.sum(dtype=np.uint64) % np.uint64(HASH_MODULUS))


def _mix(value: np.ndarray) -> np.ndarray:
    """Mix 64-bit numbers with the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
