"""What the page shows of a picture: a card for each model, with its captions and the light of each word's attention.

The picture is sent once. A word carries its attention as a small mask; the browser lays the bright picture under that
mask over a dim one, as `draw_attention` does in pixels.

Dimensions: L tokens of a caption, X Y rows and columns of the attention's grid.
"""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from imgcap.captioning.captioner import Caption
from imgcap.pictures.attention import light
from imgcap.pictures.normalise import jpeg_of
from imgcap.pictures.pages import data_url, template
from imgcap.text.written import spaces

MASK_SIDE = 64  # pixels of a word's mask; the browser scales it up smoothly
QUALITY = 88
HTML: Any = template("captioning/page/cards.html").module  # its macros, which return HTML


def result(picture: Image.Image, cards: Iterable[str]) -> str:
    """HTML of all models' cards side by side, over the one picture."""
    return HTML.result(data_url(jpeg_of(picture, QUALITY)), picture.size, cards)


def card(name: str, about: str, caption: Caption) -> str:
    """HTML of one model's captions, the best over its attention; where the model attends, its words are buttons."""
    masks = map(_mask, caption.attention) if caption.attention is not None else ()
    before = spaces(caption.text, caption.tokens)
    words = zip(before or [" "] * len(caption.tokens), caption.tokens, masks, strict=False)
    return HTML.captions(name, about, caption, list(words), before is not None)


def thumbnails(pictures: Iterable[Image.Image]) -> str:
    """HTML of pictures to choose from; the button of each has its number as value."""
    return HTML.thumbnails([data_url(jpeg_of(picture, QUALITY)) for picture in pictures])


def _mask(map_XY: np.ndarray) -> str:
    opaque = Image.fromarray((255 * light(map_XY, (MASK_SIDE, MASK_SIDE))).round().astype("uint8"))
    out = io.BytesIO()
    Image.merge("LA", (opaque, opaque)).save(out, "PNG", optimize=True)
    return data_url(out.getvalue(), "png")
