"""A trained captioner as Python uses it: pictures of any sort in, captions out. `imgcap.load` makes one.

Dimensions: L tokens of a caption, X Y rows and columns of the grid that the attention looks at, P = XY.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgcap.captioning.batch import Captioned, Scored, caption_pictures
from imgcap.captioning.pictures import Picture, as_picture, one_or_many
from imgcap.config.decoding import DecodeOptions
from imgcap.errors import UserError
from imgcap.models.trained import LoadedCaptioner
from imgcap.pictures.opening import UnreadableImage


@dataclass(frozen=True)
class Caption:
    """What a model says of a picture: its text as people write it, and the tokens that scores count.

    The score is log probability / length ** length penalty, below 0. The attention is float32: how much each token
    looked at each cell of the picture, 1 in sum over the cells, less what it looked at class and register tokens
    (`model.encoder.tokens=all`).
    """

    text: str
    score: float
    tokens: list[str]
    attention: np.ndarray | None  # (L, X, Y); None unless asked for
    others: list[Scored]  # the next best captions, or more samples, where more than one was asked for


class PictureCaptioner:
    """Captions pictures in batches, on the device where its model is."""

    def __init__(self, loaded: LoadedCaptioner):
        self.loaded = loaded

    def caption(
        self,
        images: Picture | Iterable[Picture],
        beam: int | None = None,
        *,
        attention: bool = False,
        batch_size: int = 32,
        urls: bool = False,
        capital: bool = False,
        **decoding: Any,
    ) -> list[Caption]:
        """Caption one picture or many, in order; memory grows with `batch_size`, not with their number.

        A picture is a path, a PIL picture, a tensor (C, H, W) or array (H, W, C), of uint8 or of floats from 0 to 1,
        and, with `urls`, an address. With `capital` a caption begins with one. `decoding` are options of
        `DecodeOptions` (method, best, samples ...); where none are given the model decodes as in evaluation, but for
        <unk>. Raises `UserError` for what is no picture, naming it.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is at least 1; it is {batch_size}")
        options = DecodeOptions.like_evaluation(self.loaded.config.eval, beam=beam, **decoding)
        decoder = self.loaded.config.model.decoder
        if attention and not decoder.attends:
            raise UserError(
                f"attention=True needs a decoder that attends; this one is model.decoder.type={decoder.type}"
            )
        captions: list[Caption] = []
        numbered = enumerate(one_or_many(images))
        with ThreadPoolExecutor() as threads:  # decoding and waiting for files let other threads run
            while batch := list(islice(numbered, batch_size)):
                pictures = list(threads.map(lambda entry: self._opened(entry[0], entry[1], urls), batch))
                found = caption_pictures(self.loaded, pictures, options, attention, capital=capital)
                captions += [self._caption(captioned) for captioned in found]
        return captions

    def _opened(self, number: int, image: Picture, urls: bool) -> Image.Image:
        try:
            return as_picture(image, self.loaded.config.data.image_size, urls)
        except UnreadableImage as reason:
            name = str(image) if isinstance(image, str | Path) else f"picture {number}"
            raise UserError(f"{name} can't be captioned: {reason}") from None

    def _caption(self, captioned: Captioned) -> Caption:
        attention_LXY = None
        if captioned.attention_LP is not None:
            grid = self.loaded.model.encoder.grid(self.loaded.config.data.image_size)
            attention_LXY = captioned.attention_LP.reshape(-1, *grid)
        text, score = captioned.captions[0]
        return Caption(text, score, captioned.words, attention_LXY, captioned.captions[1:])
