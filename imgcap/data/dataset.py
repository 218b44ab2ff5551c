"""Map-style datasets over a shard set: one item is one image with all its captions."""

import sys
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from imgcap.config.schema import DataConfig
from imgcap.data.transforms import augmented_image, decode, eval_image
from imgcap.errors import UserError
from imgcap.shards import ShardReader
from imgcap.text import Vocabulary, row
from imgcap.types import PAD, Sample

# What the shard reader and Pillow raise where a shard went bad after it was built.
DAMAGED = (UserError, OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError)
NO_IMAGE = -1  # the image id of a sample that could not be read


class Ticket(NamedTuple):
    """What the sampler asks of the training dataset: a sample of an epoch, weight 0 for padding."""

    epoch: int
    sample: int
    weight: float


class Item(NamedTuple):
    image_CHW: torch.Tensor
    tokens_KT: torch.Tensor
    weight: float
    image_id: int


class CaptionRows:
    """Turns the stored tokens of an image into K fixed rows of T = max_tokens + 2."""

    def __init__(self, vocabulary: Vocabulary, data: DataConfig):
        self.vocabulary = vocabulary
        self.captions, self.length = data.captions_per_image, data.max_tokens + 2

    def __call__(self, tokens: list[list[str]], chosen: np.ndarray | None = None) -> torch.Tensor:
        """Encode the first K captions, or the chosen ones; all <pad> where the image has fewer."""
        rows = np.full((self.captions, self.length), PAD, np.int64)
        indices = range(min(self.captions, len(tokens))) if chosen is None else chosen
        for k, caption in enumerate(indices):
            rows[k] = row(self.vocabulary, tokens[caption], self.length)
        return torch.from_numpy(rows)


class TrainDataset(Dataset[Item]):
    """Augmented images, addressed by `Ticket`, so that every choice is keyed by (seed, epoch, sample)."""

    def __init__(self, reader: ShardReader, vocabulary: Vocabulary, data: DataConfig, seed: int):
        self.reader, self.data, self.seed = reader, data, seed
        self.rows = CaptionRows(vocabulary, data)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, ticket: Ticket) -> Item:
        """One sample; a damaged one is named on stderr and gets weight 0, so that no rank shifts or stops."""
        key = (self.seed, ticket.epoch, ticket.sample)
        size = self.data.image_size
        try:
            sample = self.reader.read(ticket.sample)
            image_CHW = augmented_image(decode(sample.jpeg, size), size, self.data.augment, key)
        except DAMAGED as error:
            print(f"skipped: sample {ticket.sample} of {self.reader.folder}: {error}", file=sys.stderr, flush=True)
            blank = torch.zeros(3, size, size, dtype=torch.uint8)
            return Item(blank, self.rows([]), 0.0, NO_IMAGE)
        tokens_KT = self.rows(sample.tokens, self._chosen(sample, key)) if ticket.weight else self.rows([])
        return Item(image_CHW, tokens_KT, ticket.weight, sample.image_id)

    def _chosen(self, sample: Sample, key: tuple[int, int, int]) -> np.ndarray | None:
        """Which K captions of an image that has more, anew each epoch."""
        if len(sample.tokens) <= self.rows.captions:
            return None
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, 1))))
        return np.sort(random.permutation(len(sample.tokens))[: self.rows.captions])


class EvalDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Whole images without augmentation, in the order of the shards."""

    def __init__(self, reader: ShardReader, vocabulary: Vocabulary, data: DataConfig):
        self.reader, self.size = reader, data.image_size
        self.rows = CaptionRows(vocabulary, data)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = self.reader.read(index)
        return eval_image(decode(sample.jpeg, self.size), self.size), self.rows(sample.tokens)
