"""Captions of a batch of pictures, by one captioner or an ensemble.

Dimensions: B images, C colour channels, L words of a caption, P grid cells.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgcap.config.decoding import DecodeOptions
from imgcap.config.model import TransformerConfig
from imgcap.data.augmentation import eval_image
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.errors import UserError
from imgcap.models.trained import LoadedCaptioner
from imgcap.ranks.memory import batch_that_fits, within_memory
from imgcap.text.written import written


class Scored(NamedTuple):
    """A caption, as people write it, and its log probability / length ** length penalty."""

    caption: str
    score: float


@dataclass(frozen=True)
class Captioned:
    """A picture's captions, the best first, and of the best its words and where each looked."""

    captions: list[Scored]
    words: list[str]
    attention_LP: np.ndarray | None  # float32, of the grid's cells; None unless asked for, or without attention

    @property
    def caption(self) -> str:
        return self.captions[0].caption

    @property
    def score(self) -> float:
        return self.captions[0].score


@torch.no_grad()
def caption_pictures(
    loaded: LoadedCaptioner,
    pictures: Sequence[Image.Image],
    options: DecodeOptions,
    attention: bool = False,
    others: Sequence[LoadedCaptioner] = (),
    capital: bool = False,
) -> Iterator[Captioned]:
    """Caption a batch of RGB pictures, in order; `others` join the captioner as an ensemble, in its precision.

    Captions are as people write them, with a `capital` at the beginning where it is asked for. Samples depend on the
    seed and on the picture itself. Raises `UserError` where the others have another vocabulary or can't caption at the
    captioner's length, and where the device's memory runs out.
    """
    for other in others:
        _check_vocabulary(loaded, other)
        _check_length(loaded, other)
    members = [loaded, *others]
    prepared = [torch.stack([eval_image(picture, *_input(member)) for picture in pictures]) for member in members]
    keys_B = _keys(prepared[0]) if options.method == "sample" else None

    def decoded(count: int) -> Hypotheses:
        with loaded.autocast():
            return generate(
                [member.model.decoder for member in members],
                [
                    member.model.encode(own[:count].to(loaded.device))
                    for member, own in zip(members, prepared, strict=True)
                ],
                options,
                loaded.vocabulary,
                loaded.config.data.max_tokens,
                attention,
                image_keys=None if keys_B is None else keys_B[:count],
            )

    found = within_memory(
        lambda: decoded(len(pictures)),
        lambda: batch_that_fits(decoded, len(pictures), loaded.device, "caption", "--batch or batch_size"),
    )

    def text(row: list[int]) -> str:
        return written(loaded.vocabulary.words_of(row), loaded.config.data.language, capital)

    tokens, scores, lengths = found.tokens_BWL.tolist(), found.scores_BW.tolist(), found.lengths_BW.tolist()
    for place in range(len(pictures)):
        rows = zip(tokens[place], scores[place], lengths[place], strict=True)
        captions = [Scored(text(row), score) for row, score, length in rows if length]
        words = [loaded.vocabulary.words[token] for token in tokens[place][0][: lengths[place][0] - 1]]
        attention_BLP = found.attention_BLP
        attention_LP = None
        if attention_BLP is not None:
            cells = slice(loaded.model.encoder.leading, None)
            attention_LP = attention_BLP[place, : len(words), cells].float().cpu().numpy()
        yield Captioned(captions, words, attention_LP)


def _input(loaded: LoadedCaptioner) -> tuple[int, str]:
    return loaded.config.data.image_size, loaded.config.data.interpolation


def _keys(images_BCHW: Tensor) -> Tensor:
    """Random keys of 63 bits, one for each picture by its pixels."""
    digests = [hashlib.blake2b(image_CHW.numpy().tobytes(), digest_size=8).digest() for image_CHW in images_BCHW]
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests])


def _check_vocabulary(loaded: LoadedCaptioner, other: LoadedCaptioner) -> None:
    if other.vocabulary != loaded.vocabulary:
        pairs = zip_longest(*([member.vocabulary.oov, *member.vocabulary.words] for member in (loaded, other)))
        ours, theirs = next((ours, theirs) for ours, theirs in pairs if ours != theirs)
        if ours is None or theirs is None:
            differs = f"without {ours!r} and what follows" if theirs is None else f"with {theirs!r} and more besides"
        else:
            differs = f"first {theirs!r} in place of {ours!r}"
        raise UserError(
            f"{other.path} has another vocabulary than {loaded.path}, {differs}; "
            "an ensemble needs runs of one vocab.json"
        )


def _check_length(loaded: LoadedCaptioner, other: LoadedCaptioner) -> None:
    decoder, longest = other.config.model.decoder, loaded.config.data.max_tokens
    if isinstance(decoder, TransformerConfig) and decoder.max_length <= longest:
        raise UserError(
            f"{other.path} knows {decoder.max_length} positions, and captions of {loaded.path} have up to {longest} "
            f"words and <sos>; name {other.path} first, whose own captions are shorter"
        )


def say_empty(captions: Sequence[str]) -> None:
    """Say on stderr how many captions hold no word, so that nobody looks for what went wrong."""
    if empty := captions.count(""):
        told = "the model ends them at once, as it does early in training; --min-length 1 asks for a word"
        print(f"warning: {empty:,} of {len(captions):,} captions are empty: {told}", file=sys.stderr, flush=True)
