"""Captions of one's own pictures: any file that Pillow reads, prepared as the shards are.

Dimensions: B images, C colour channels, L words of a caption, P grid cells.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from imgcap.config.decoding import DecodeOptions
from imgcap.data import decode, eval_image
from imgcap.decode.generate import generate
from imgcap.errors import UserError
from imgcap.models.artefact import LoadedCaptioner
from imgcap.shards.image import UnreadableImage, normalised_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_QUALITY = 95  # of what is no upright RGB JPEG already


class Scored(NamedTuple):
    """A caption and its log probability / length ** length penalty."""

    caption: str
    score: float


@dataclass(frozen=True)
class Captioned:
    """A picture's captions, the best first, and of the best its words and where each looked."""

    captions: list[Scored]
    words: list[str]
    attention_LP: np.ndarray | None  # a row for each word; None unless asked for, or without attention

    @property
    def caption(self) -> str:
        return self.captions[0].caption

    @property
    def score(self) -> float:
        return self.captions[0].score


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Files as given, and the pictures in folders (by suffix, their subfolders too), sorted; each once.

    UserError for a path that isn't there and a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise UserError(f"there is no picture in {path}; name one that holds {', '.join(SUFFIXES)} files")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"there is no picture or folder {path}; check the name")
    return list(dict.fromkeys(found))


def open_picture(path: Path, size: int) -> Image.Image:
    """An upright RGB picture of any sort of file, not much larger than `size` needs; UnreadableImage if it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from None
    return picture_of(data, size)


def picture_of(data: bytes, size: int) -> Image.Image:
    """The same of a file's bytes."""
    return decode(normalised_jpeg(data, None, _QUALITY), size)


@torch.no_grad()
def caption_pictures(
    loaded: LoadedCaptioner,
    pictures: Sequence[Image.Image],
    options: DecodeOptions,
    attention: bool = False,
    others: Sequence[LoadedCaptioner] = (),
) -> Iterator[Captioned]:
    """Caption a batch of RGB pictures, in order; `others` join the captioner as an ensemble.

    Samples depend on the seed and on the picture itself. Raises `UserError` where the others have another vocabulary.
    """
    for other in others:
        _check_vocabulary(loaded, other)
    members = [loaded, *others]
    device = next(loaded.model.parameters()).device
    prepared = [
        torch.stack([eval_image(picture, member.config.data.image_size) for picture in pictures]) for member in members
    ]
    features_BPE = [member.model.encoder(own.to(device)) for member, own in zip(members, prepared, strict=True)]
    found = generate(
        [member.model.decoder for member in members],
        features_BPE,
        options,
        loaded.vocabulary,
        loaded.config.data.max_tokens,
        attention,
        image_keys=_keys(prepared[0]) if options.method == "sample" else None,
    )
    tokens, scores, lengths = found.tokens_BWL.tolist(), found.scores_BW.tolist(), found.lengths_BW.tolist()
    for place in range(len(pictures)):
        rows = zip(tokens[place], scores[place], lengths[place], strict=True)
        captions = [Scored(loaded.vocabulary.decode(row), score) for row, score, length in rows if length]
        words = [loaded.vocabulary.words[token] for token in tokens[place][0][: lengths[place][0] - 1]]
        attention_BLP = found.attention_BLP
        attention_LP = None if attention_BLP is None else attention_BLP[place, : len(words)].cpu().numpy()
        yield Captioned(captions, words, attention_LP)


def _keys(images_BCHW: torch.Tensor) -> torch.Tensor:
    """A number of 63 bits for each picture, by its pixels."""
    digests = [hashlib.blake2b(image_CHW.numpy().tobytes(), digest_size=8).digest() for image_CHW in images_BCHW]
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests])


def _check_vocabulary(loaded: LoadedCaptioner, other: LoadedCaptioner) -> None:
    if other.vocabulary != loaded.vocabulary:
        pairs = zip_longest(*([member.vocabulary.oov, *member.vocabulary.words] for member in (loaded, other)))
        ours, theirs = next((ours, theirs) for ours, theirs in pairs if ours != theirs)
        raise UserError(
            f"{other.path} has another vocabulary than {loaded.path}, first {theirs!r} in place of {ours!r}; "
            "an ensemble needs runs of one vocab.json"
        )
