"""The images of a split in batches that are composed alike for every number of ranks.

Dimensions: B images, K captions an image, T tokens, C colour channels.
"""

import sys
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imgcap.data.batch import NO_IMAGE
from imgcap.data.dataset import DAMAGED, EvalDataset
from imgcap.data.loader import read_ahead
from imgcap.errors import UserError
from imgcap.files.fetch import Unreachable
from imgcap.types import PAD


class EvalItem(NamedTuple):
    """One image with its captions; an image that can't be read is blank, without tokens, and not sound."""

    image_CHW: Tensor
    tokens_KT: Tensor
    image_id: int
    file_name: str
    references: list[str]
    sound: bool


class EvalBatch(NamedTuple):
    """Batch of B images, of which the first `real` are its own; the others fill it up and are dropped."""

    number: int
    real: int
    images_BCHW: Tensor
    tokens_BKT: Tensor
    image_ids: list[int]
    file_names: list[str]
    references: list[list[str]]
    sound: list[bool]

    def first(self, images: int) -> "EvalBatch":
        """Keep only so many of the images."""
        each = (values[:images] for values in self[2:])
        return EvalBatch(self.number, min(self.real, images), *each)  # type: ignore[arg-type]  # a tensor or list each


class FixedBatches:
    """Batches of images [b·B, (b+1)·B) of `count`, filled up from the start; rank r takes batch r, r + world, …

    All ranks take equal steps: one that has no batch left repeats an early one, whose number is then too high.
    """

    def __init__(self, count: int, batch: int, rank: int, world_size: int):
        self.count, self.batch = count, batch
        self.total = -(-count // batch)
        self.numbers = [step * world_size + rank for step in range(-(-self.total // world_size))]

    def __len__(self) -> int:
        return len(self.numbers)

    def indices(self, number: int) -> list[int]:
        start = (number % self.total) * self.batch
        return [index % self.count for index in range(start, start + self.batch)]

    def real(self, number: int) -> int:
        """How many images of the batch count; 0 for a repeated batch."""
        return min(self.batch, self.count - number * self.batch) if number < self.total else 0

    def loader(self, dataset: EvalDataset, workers: int, pin_memory: bool) -> DataLoader[EvalBatch | UserError]:
        """The batches of this rank, in order, read ahead by `workers` processes (0: in this one)."""
        return read_ahead(partial(self._read, dataset), self.numbers, min(workers, len(self)), pin_memory)

    def _read(self, dataset: EvalDataset, number: int) -> EvalBatch:
        real = self.real(number)
        items = [_read_item(dataset, index) for index in self.indices(number)]
        tokens_BKT = torch.stack([item.tokens_KT for item in items])
        tokens_BKT[real:] = PAD  # what fills up has no part in the loss
        with torch.autocast("cpu", enabled=False):  # it knows no float16, which features are
            images_BCHW = torch.stack([item.image_CHW for item in items])
        return EvalBatch(
            number=number,
            real=real,
            images_BCHW=images_BCHW,
            tokens_BKT=tokens_BKT,
            image_ids=[item.image_id for item in items],
            file_names=[item.file_name for item in items],
            references=[item.references for item in items],
            sound=[item.sound for item in items],
        )


def _read_item(dataset: EvalDataset, index: int) -> EvalItem:
    """Read one image with its captions; a damaged one is named on stderr and shifts nothing."""
    try:
        sample = dataset.reader.read(index)
        image_CHW, tokens_KT = dataset[index]
    except Unreachable:
        raise
    except DAMAGED as error:
        print(f"skipped: {dataset.reader.name(index)}: {error}", file=sys.stderr, flush=True)
        return EvalItem(dataset.blank(), dataset.rows([]), NO_IMAGE, "", [], False)
    return EvalItem(image_CHW, tokens_KT, sample.image_id, sample.file_name, sample.captions, True)
