"""The words that every room of the house shares: special tokens, samples and batches.

Dimensions, in every file: B images, K captions an image, T tokens, V vocabulary, P grid cells,
E encoder width, H hidden width, A attention width, W beams, L layers, C colour channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

PAD, SOS, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<sos>", "<eos>", "<unk>")


@dataclass(frozen=True)
class Record:
    """One image and its captions as a dataset publishes them, before it is in a shard."""

    image_id: int
    file_name: str
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One image of a shard set: the JPEG bytes and what `KEY.json` says of it."""

    image_id: int
    file_name: str
    captions: list[str]
    tokens: list[list[str]]
    jpeg: bytes


class Batch(NamedTuple):
    """What one training step sees. Weight 0 marks the padding of an epoch's last batch."""

    images_BCHW: torch.Tensor  # uint8, as decoded; the model normalises
    tokens_BKT: torch.Tensor  # int64: <sos> words <eos> <pad> ...; all <pad> where there is no caption
    weight_B: torch.Tensor  # float32, 1 or 0
    image_ids: torch.Tensor  # int64, shape (B,)
