"""Captions of one's own pictures: any file that Pillow reads, prepared as the shards are.

Dimensions: B images, C colour channels, L words of a caption, P grid cells.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imgcap.data import decode, eval_image
from imgcap.decode.beam import beam_search
from imgcap.errors import UserError
from imgcap.models.artefact import LoadedCaptioner
from imgcap.shards.image import UnreadableImage, normalised_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_QUALITY = 95  # of what is no upright RGB JPEG already


@dataclass(frozen=True)
class Captioned:
    """A picture's caption and its score: log probability / length ** length penalty."""

    caption: str
    score: float
    words: list[str]
    attention_LP: np.ndarray | None  # a row for each word; None unless asked for, or without attention


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
    loaded: LoadedCaptioner, pictures: Sequence[Image.Image], beam: int, length_penalty: float, attention: bool = False
) -> Iterator[Captioned]:
    """Caption a batch of RGB pictures, in order."""
    data = loaded.config.data
    images_BCHW = torch.stack([eval_image(picture, data.image_size) for picture in pictures])
    device = next(loaded.model.parameters()).device
    features_BPE = loaded.model.encoder(images_BCHW.to(device))
    found = beam_search(loaded.model.decoder, features_BPE, beam, data.max_tokens, length_penalty, attention)
    rows = zip(found.tokens_BL.tolist(), found.scores_B.tolist(), found.lengths_B.tolist(), strict=True)
    for place, (tokens, score, length) in enumerate(rows):
        words = [loaded.vocabulary.words[token] for token in tokens[: length - 1]]
        attention_BLP = found.attention_BLP
        attention_LP = None if attention_BLP is None else attention_BLP[place, : len(words)].cpu().numpy()
        yield Captioned(loaded.vocabulary.decode(tokens), score, words, attention_LP)
