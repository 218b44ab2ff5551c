"""Writing text into pictures: the font, lines broken to a width in pixels, and scripts from right to left.

Letters are joined and put in order here, by arabic-reshaper and python-bidi, and not by Pillow's Raqm: that needs
FriBiDi from the system, which many containers lack, and Arabic would come out there in single letters, reversed.
"""

import functools
import unicodedata
from pathlib import Path

from arabic_reshaper import ArabicReshaper
from bidi.algorithm import get_display  # the one in Rust turns no brackets round
from PIL import ImageDraw, ImageFont

FONTS = Path(__file__).with_name("fonts")
_RESHAPER = ArabicReshaper({"delete_harakat": False})
_UNSEEN = ("", "LRI", "RLI", "FSI", "PDI")  # unassigned characters and isolates: python-bidi stumbles over them


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes along: it has Latin, Greek, Cyrillic, Arabic and Hebrew."""
    path = FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def is_right_to_left(text: str) -> bool:
    """Whether a text's first letter with a direction is of a script such as Arabic (Unicode's rules P2 and P3)."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction for direction in directions if direction in ("L", "R", "AL")), "L") != "L"


def as_seen(text: str, right_to_left: bool = False) -> str:
    """Bring a text into the forms and the order in which it is drawn from left to right (Unicode's bidi algorithm).

    `right_to_left` is the direction of the paragraph that the text is a part of.
    """
    if text.isascii():
        return text
    drawn = "".join(character for character in text if unicodedata.bidirectional(character) not in _UNSEEN)
    return str(get_display(_RESHAPER.reshape(drawn), base_dir="R" if right_to_left else "L"))


def width_of(text: str, lettering: ImageFont.FreeTypeFont) -> float:
    """The width, in pixels, that a text takes where it is drawn."""
    return lettering.getlength(as_seen(text))


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    width: float,
    text: str,
    lettering: ImageFont.FreeTypeFont,
    fill: str,
    right_to_left: bool = False,
) -> None:
    """Draw a line of text from `place`, its upper left, or so that it ends `width` pixels to the right of that."""
    x, y = place
    seen, anchor = as_seen(text, right_to_left), "ra" if right_to_left else "la"
    pen.text((x + width if right_to_left else x, y), seen, font=lettering, fill=fill, anchor=anchor)


def wrap(text: str, lettering: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines no wider than `width` pixels; a word that is wider alone is cut up."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if width_of(candidate, lettering) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        line = word
        while width_of(line, lettering) > width and len(line) > 1:
            fitting = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or width_of(line[:n], lettering) <= width)
            lines.append(line[:fitting])
            line = line[fitting:]
    return [*lines, line] if line else lines
