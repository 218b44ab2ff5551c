"""What the page shows of a picture: a card for each model, with its captions and the heat of each word's attention.

The picture is sent twice, as it is and pale. A word carries its attention as a small layer, which the browser lays over
the pale picture, as `draw_attention` does.

Dimensions: L tokens of a caption, X Y rows and columns of the attention's grid.
"""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgcap.pictures.attention import heat, pale
from imgcap.pictures.normalise import jpeg_of
from imgcap.pictures.pages import data_url, template
from imgcap.text.written import spaces

if TYPE_CHECKING:
    from imgcap.captioning.captioner import Caption

HEAT_SIDE = 64  # pixels of a word's layer; the browser scales it up smoothly
QUALITY, PALE_QUALITY = 88, 75
HTML: Any = template("captioning/page/cards.html").module  # its macros, which return HTML


def result(picture: Image.Image, cards: Iterable[str]) -> str:
    """HTML of all models' cards side by side, over the one picture."""
    shown = data_url(jpeg_of(picture, QUALITY))
    ground = data_url(jpeg_of(pale(picture), PALE_QUALITY))
    return HTML.result(shown, ground, picture.size, cards)


def card(name: str, about: str, caption: "Caption") -> str:
    """HTML of one model's captions, the best over its attention; where the model attends, its words are buttons."""
    layers = map(_layer, caption.attention) if caption.attention is not None else ()
    before = spaces(caption.text, caption.tokens)
    words = zip(before or [" "] * len(caption.tokens), caption.tokens, layers, strict=False)
    return HTML.captions(name, about, caption, list(words), before is not None)


def thumbnails(pictures: Iterable[Image.Image]) -> str:
    """HTML of pictures to choose from; the button of each has its number as value."""
    return HTML.thumbnails([data_url(jpeg_of(picture, QUALITY)) for picture in pictures])


def _layer(map_XY: np.ndarray) -> str:
    out = io.BytesIO()
    heat(map_XY, (HEAT_SIDE, HEAT_SIDE)).save(out, "PNG", optimize=True)
    return data_url(out.getvalue(), "png")
