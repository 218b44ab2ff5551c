"""What the page shows of a picture: a card for each model, with its captions and the light of each word's attention.

The picture is sent once. A word carries its attention as a small mask; the browser lays the bright picture under that
mask over a dim one, as `draw_attention` does in pixels.

Dimensions: L tokens of a caption, X Y rows and columns of the attention's grid.
"""

import base64
import io
from collections.abc import Iterable
from html import escape

from PIL import Image

from imgcap.captioning.captioner import Caption
from imgcap.pictures.attention import light

MASK_SIDE = 64  # pixels of a word's mask; the browser scales it up smoothly
TITLE = """
<div class="title"><h1>What is in the picture?</h1>
<p>Drop one, or choose an example. Point at a word of the caption to see where the model looked for it.</p></div>
"""
EMPTY = '<p class="empty">The captions come here.</p>'


def result(picture: Image.Image, cards: Iterable[str]) -> str:
    """The cards of all models side by side, over the one picture."""
    shape = f"--picture: url({_picture_url(picture)}); --shape: {picture.width} / {picture.height}"
    return f'<div class="cards" style="{shape}">{"".join(cards)}</div>'


def card(name: str, about: str, caption: Caption) -> str:
    """One model's captions, the best over the picture's attention."""
    words, looked = _words(caption), ""
    if words and " ".join(caption.tokens) != caption.text:  # spelled and unknown words: tokens that aren't the text
        looked, words = f'<p class="tokens" dir="auto">{words}</p>', ""
    others = "".join(
        f'<li><span dir="auto">{escape(other.caption)}</span>{_score(other.score)}</li>' for other in caption.others
    )
    best = f'<p class="caption" dir="auto">{words or escape(caption.text)}</p>{_score(caption.score)}'
    body = [
        f'<div class="picture" role="img" aria-label="{escape(caption.text)}"><div class="lit"></div></div>',
        f'<div class="best">{best}</div>',
        looked,
        f'<ul class="others">{others}</ul>' * bool(others),
    ]
    return _card(name, about, "".join(body))


def refusal(name: str, about: str, reason: str) -> str:
    """The card of a model that can't caption as asked."""
    return _card(name, about, message(reason))


def thumbnails(pictures: Iterable[Image.Image]) -> str:
    """Pictures to choose from; the button of each has its number as value."""
    buttons = [
        f'<button type="button" value="{number}" aria-label="example {number + 1}">'
        f'<img alt="" src="{_picture_url(picture)}"></button>'
        for number, picture in enumerate(pictures)
    ]
    return f'<div class="examples">{"".join(buttons)}</div>'


def hint(text: str) -> str:
    """A small line of help."""
    return f'<p class="hint">{escape(text)}</p>'


def message(reason: str) -> str:
    """What was wrong, in place of captions."""
    return f'<p class="refused" role="alert" dir="auto">{escape(reason)}</p>'


def _card(name: str, about: str, body: str) -> str:
    return f'<article class="card"><header><h2>{escape(name)}</h2><span>{escape(about)}</span></header>{body}</article>'


def _words(caption: Caption) -> str:
    """A button for each token; none where the model doesn't attend."""
    if caption.attention is None:
        return ""
    buttons = []
    for token, map_XY in zip(caption.tokens, caption.attention, strict=True):
        mask = light(map_XY, (MASK_SIDE, MASK_SIDE))
        opaque = Image.fromarray((255 * mask).round().astype("uint8"))
        out = io.BytesIO()
        Image.merge("LA", (opaque, opaque)).save(out, "PNG", optimize=True)
        url = _data_url(out.getvalue(), "png")
        buttons.append(
            f'<button type="button" class="word" aria-pressed="false" data-light="{url}">{escape(token)}</button>'
        )
    return " ".join(buttons)


def _score(score: float) -> str:
    return f'<span class="score" title="log probability / length ** length penalty">{score:.3f}</span>'


def _picture_url(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return _data_url(out.getvalue(), "jpeg")


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
