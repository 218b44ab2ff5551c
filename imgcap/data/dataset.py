"""Datasets for training and evaluation over a shard set: an image comes with all its captions."""

import sys

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from imgcap.config.data import DataConfig
from imgcap.data.augmentation import eval_image, training_image
from imgcap.data.batch import NO_IMAGE, PADDING, BatchShape
from imgcap.data.keyed_random import generator
from imgcap.data.mixture import MixedReader
from imgcap.data.plan import MicroBatch
from imgcap.errors import UserError
from imgcap.files.fetch import Unreachable
from imgcap.pictures.opening import decode
from imgcap.shards.manifest import Features
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import PAD, Batch

# What the shard reader and Pillow raise where a shard went bad after it was built.
DAMAGED = (UserError, OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError)


def place_of(data: DataConfig, address: str | None = None) -> Place:
    """The place of a configuration's shards, or of another of its sets (`address`), with its cache."""
    return Place(address or data.shards, data.cache, data.cache_gb)


def features_of(reader: ShardReader | MixedReader, data: DataConfig) -> Features | None:
    """The features that are read in place of pictures, if any. `UserError` where they are of other pictures."""
    features = reader.manifest.features if data.features else None
    if features and features.image_size != data.image_size:
        raise UserError(
            f"the features in {reader.place} are of images at {features.image_size} px, and data.image_size is "
            f"{data.image_size}; set data.image_size={features.image_size}, or data.features=false to read the pictures"
        )
    if features and features.interpolation != data.interpolation:
        raise UserError(
            f"the features in {reader.place} are of {features.interpolation} pictures; set data.interpolation="
            f"{features.interpolation}, or data.features=false to read the pictures"
        )
    return features


class CaptionRows:
    """Encodes the stored tokens of an image as K rows of fixed length T = max_tokens + 2."""

    def __init__(self, vocabulary: Vocabulary, data: DataConfig):
        self.vocabulary = vocabulary
        self.captions, self.length = data.captions_per_image, data.max_tokens + 2

    def __call__(self, tokens: list[list[str]]) -> torch.Tensor:
        """Encode the first K captions as (K, T) int64; rows without a caption are all <pad>."""
        tokens_KT = np.full((self.captions, self.length), PAD, np.int64)
        self.write(tokens, tokens_KT)
        return torch.from_numpy(tokens_KT)

    def write(self, tokens: list[list[str]], tokens_KT: np.ndarray, chosen: np.ndarray | None = None) -> None:
        """Encode the first K captions, or the chosen ones, into `tokens_KT`, whose rows hold <pad> so far."""
        captions = tokens[: self.captions] if chosen is None else [tokens[caption] for caption in chosen]
        for caption, tokens_T in zip(captions, tokens_KT, strict=False):
            ids = self.vocabulary.row(caption, self.length)
            tokens_T[: len(ids)] = ids


class TrainDataset:
    """Augmented images with their captions, every choice keyed by (seed, pass over its set, sample)."""

    def __init__(self, reader: ShardReader | MixedReader, vocabulary: Vocabulary, data: DataConfig, seed: int):
        self.reader, self.data, self.seed = reader, data, seed
        self.features = features_of(reader, data)
        self.rows = CaptionRows(vocabulary, data)

    def shape(self, images: int) -> BatchShape:
        """The sizes of a batch of so many images."""
        cells = self.features.shape if self.features else None
        return BatchShape(images, self.data.image_size, self.rows.captions, self.rows.length, cells)

    def write(self, micro_batch: MicroBatch, batch: Batch) -> None:
        """Read the samples of a micro-batch into their places.

        A damaged one is named on stderr and doesn't count, so that no rank shifts or stops; its place is taken by a
        picture that is sound, as a blank one would move BatchNorm's statistics.
        """
        images_BHWC = (batch.images_BCHW if self.features else batch.images_BCHW.permute(0, 2, 3, 1)).numpy()
        tokens_BKT = batch.tokens_BKT.numpy()
        image_ids = batch.image_ids.numpy()
        tokens_BKT[:] = PAD
        damaged = []
        for place, (number, sample, padding) in enumerate(zip(*(x.tolist() for x in micro_batch), strict=True)):
            key = (self.seed, number, sample)
            try:
                image_id = self._read(key, images_BHWC[place], None if padding else tokens_BKT[place])
                image_ids[place] = PADDING if padding else image_id
            except Unreachable:
                raise
            except DAMAGED as error:
                print(f"skipped: {self.reader.name(sample)}: {error}", file=sys.stderr, flush=True)
                damaged.append(place)
        if damaged:
            sound = np.setdiff1d(np.arange(len(image_ids)), damaged)
            images_BHWC[damaged] = images_BHWC[np.resize(sound, len(damaged))] if len(sound) else 0
            tokens_BKT[damaged], image_ids[damaged] = PAD, NO_IMAGE

    def _read(self, key: tuple[int, int, int], image_HWC: np.ndarray, tokens_KT: np.ndarray | None) -> int:
        """Write an image into its place, and its captions where they are asked for; return its id."""
        if self.features:
            sample, image_HWC[:] = self.reader.read_features(key[2])
        else:
            sample = self.reader.read(key[2])
            picture = decode(sample.jpeg, self.data.image_size)
            training_image(picture, self.data, sample.tokens, key, image_HWC)
        if tokens_KT is not None:
            chosen = chosen_captions(len(sample.tokens), self.rows.captions, key)  # anew in each pass
            self.rows.write(sample.tokens, tokens_KT, chosen)
        return sample.image_id


def chosen_captions(captions: int, wanted: int, key: tuple[int, ...]) -> np.ndarray | None:
    """Choose which captions of an image to take, by its key; None where it has no more than are wanted."""
    if captions <= wanted:
        return None
    return np.sort(generator(*key, 1).permutation(captions)[:wanted])


class EvalDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Whole images without augmentation, or their features, with their tokens, in the order of the shards."""

    def __init__(self, reader: ShardReader, vocabulary: Vocabulary, data: DataConfig):
        self.reader, self.size, self.interpolation = reader, data.image_size, data.interpolation
        self.features = features_of(reader, data)
        self.rows = CaptionRows(vocabulary, data)

    def blank(self) -> torch.Tensor:
        """Zeros that stand for an image that can't be read."""
        if self.features:
            return torch.zeros(self.features.shape, dtype=torch.float16)
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.features:
            sample, features_PE = self.reader.read_features(index)
            return torch.from_numpy(features_PE.copy()), self.rows(sample.tokens)
        sample = self.reader.read(index)
        image_CHW = eval_image(decode(sample.jpeg, self.size), self.size, self.interpolation)
        return image_CHW, self.rows(sample.tokens)
