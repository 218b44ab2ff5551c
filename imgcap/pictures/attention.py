"""Drawing where a decoder looked for each word: a heat map over the picture (after Show, Attend and Tell, figure 2).

Dimensions: L words of a caption, P cells of the grid, X Y its rows and columns; H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from imgcap.pictures.function_words import is_function_word
from imgcap.pictures.lettering import as_seen, font, is_right_to_left, width_of, wrap, write

SIDE, SMALL_SIDE = 200, 112  # pixels: a square panel of a content word, of a function word; others have the same area
GAP, MARGIN, ROW_GAP = 16, 28, 20  # between panels, around the sheet, between rows
WIDEST = 1120  # of what lies within the margins
HEADING, FILE, WORD, SMALL_WORD, SCALE = 22, 13, 17, 13, 13  # sizes of letters
PAPER, INK, GREY, EDGE = "#ffffff", "#1b1f24", "#5c6570", "#d5dae1"
# From little to most, at even distances: matplotlib's plasma, whose lightness rises evenly for every sort of eye.
RAMP = np.array([(13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], dtype=np.float32)
OPAQUE = 0.68  # of the picture that the most attention covers
BAR = (110, 14)  # pixels of the scale
SAID = ("Where the model looked for each word, on a scale of its own:", "none", "most")


@dataclass(frozen=True)
class _Panel:
    picture: Image.Image
    word: str
    letters: int

    @cached_property
    def width(self) -> int:
        return max(self.picture.width, round(width_of(self.word, font(self.letters))))


def draw_attention(
    image: Image.Image,
    words: Sequence[str],
    attention_LP: np.ndarray,
    grid: tuple[int, int],
    caption: str | None = None,
    file: str = "",
    language: str = "en",
) -> Image.Image:
    """Draw the picture, then for each word where the decoder looked, under the caption and the file's name.

    Panels follow each other as the words do: from right to left where the caption is written so. Those of `language`'s
    function words are smaller. `attention_LP` has at least a row for each word; a row's cells lie in `grid` (rows,
    columns). `caption` is what stands above, by default the words.
    """
    assert len(attention_LP) >= len(words), (attention_LP.shape, words)
    maps = np.asarray(attention_LP, dtype=np.float32).reshape(len(attention_LP), *grid)
    picture = image.convert("RGB")
    panels = [_Panel(_sized(picture, SIDE), "", WORD)]
    for word, map_XY in zip(words, maps, strict=False):
        small = is_function_word(word, language)
        shown = heated(_sized(picture, SMALL_SIDE if small else SIDE), map_XY)
        panels.append(_Panel(shown, word, SMALL_WORD if small else WORD))
    rows = _in_rows(panels)
    width = max(_scale_width(), *(_width(row) for row in rows))
    caption = " ".join(words) if caption is None else caption
    return _drawn(rows, width, wrap(caption or "(no words)", font(HEADING, bold=True), width), file)


def light(map_XY: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map of attention to a picture's `size` (width, height): (height, width), 1 where it is most."""
    light_HW = np.asarray(Image.fromarray(map_XY).resize(size, Image.Resampling.BILINEAR))
    return (light_HW / max(float(light_HW.max()), 1e-12)).clip(0, 1)


def heat(map_XY: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw a map of attention as a layer (RGBA) of `size`: clear where there is none, dense and yellow at its most."""
    light_HW = light(map_XY, size)
    at = light_HW * (len(RAMP) - 1)
    colours = [np.interp(at, np.arange(len(RAMP)), RAMP[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack([*colours, 255 * OPAQUE * light_HW], axis=-1).round().astype(np.uint8))


def pale(picture: Image.Image) -> Image.Image:
    """Make an RGB picture the ground of a heat map: soft in colour, and bright; a dark one is lifted until it shows."""
    pixels_HWC = np.asarray(picture, dtype=np.float32) / 255
    grey_HW1 = pixels_HWC.mean(axis=-1, keepdims=True)
    middle = float(np.clip(np.median(grey_HW1), 0.01, 0.99))
    lifted = (0.4 * pixels_HWC + 0.6 * grey_HW1) ** np.clip(np.log(0.6) / np.log(middle), 0.3, 1.0)
    return Image.fromarray((255 * (0.2 + 0.8 * lifted)).round().astype(np.uint8))


def heated(picture: Image.Image, map_XY: np.ndarray) -> Image.Image:
    """Lay a map of attention over an RGB picture."""
    ground = pale(picture).convert("RGBA")
    return Image.alpha_composite(ground, heat(map_XY, picture.size)).convert("RGB")


def _sized(picture: Image.Image, side: int) -> Image.Image:
    """Bring a picture to the area of a square, or as near as twice its side allows."""
    shape = (picture.width / picture.height) ** 0.5
    scale = min(1.0, 2 / max(shape, 1 / shape))
    size = max(round(side * shape * scale), 1), max(round(side / shape * scale), 1)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _in_rows(panels: list[_Panel]) -> list[list[_Panel]]:
    """Put panels into as few rows as hold them, and these as even as they can be."""
    fewest = len(_filled(panels, WIDEST))
    widest = max(panel.width for panel in panels)
    return next(rows for width in range(widest, WIDEST + widest, 8) if len(rows := _filled(panels, width)) <= fewest)


def _filled(panels: list[_Panel], width: int) -> list[list[_Panel]]:
    rows: list[list[_Panel]] = [[]]
    for panel in panels:
        if rows[-1] and _width([*rows[-1], panel]) > width:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _width(row: list[_Panel]) -> int:
    return sum(panel.width + GAP for panel in row) - GAP


def _drawn(rows: list[list[_Panel]], width: int, heading: list[str], file: str) -> Image.Image:
    mirrored = is_right_to_left(" ".join(heading))
    names = wrap(file, font(FILE), width)
    heights = [max(panel.picture.height for panel in row) + WORD + 16 for row in rows]
    head = 30 * len(heading) + 20 * len(names) + 12
    size = 2 * MARGIN + width, 2 * MARGIN + head + sum(heights) + ROW_GAP * len(rows) + SCALE
    sheet = Image.new("RGB", size, PAPER)
    pen, y = ImageDraw.Draw(sheet), MARGIN
    for line in heading:
        write(pen, (MARGIN, y), width, line, font(HEADING, bold=True), INK, mirrored)
        y += 30
    for line in names:
        place = MARGIN + (width - width_of(line, font(FILE)) if mirrored else 0), y
        write(pen, place, width, line, font(FILE), GREY)
        y += 20
    y += 12
    for row, height in zip(rows, heights, strict=True):
        x = MARGIN
        for panel in row:
            left = size[0] - x - panel.width if mirrored else x
            _draw(sheet, panel, left, y + height - WORD - 16)
            x += panel.width + GAP
        y += height + ROW_GAP
    _draw_scale(sheet, y)
    return sheet


def _draw(sheet: Image.Image, panel: _Panel, x: int, bottom: int) -> None:
    """Draw a panel that ends at `bottom`, with its word below: words of a row stand on one line."""
    pen, (width, height) = ImageDraw.Draw(sheet), panel.picture.size
    left, top = x + (panel.width - width) // 2, bottom - height
    sheet.paste(panel.picture, (left, top))
    pen.rectangle((left - 1, top - 1, left + width, bottom), outline=EDGE)
    seen = as_seen(panel.word, is_right_to_left(panel.word))
    pen.text((x + panel.width / 2, bottom + WORD + 8), seen, font=font(panel.letters), fill=INK, anchor="ms")


def _scale_width() -> int:
    return BAR[0] + 8 * len(SAID) + sum(round(width_of(part, font(SCALE))) for part in SAID)


def _draw_scale(sheet: Image.Image, y: int) -> None:
    """Say what the colours mean."""
    pen, lettering, x = ImageDraw.Draw(sheet), font(SCALE), float(MARGIN)
    for part in SAID:
        if part == SAID[-1]:
            ramp = np.linspace(0, 1, BAR[0], dtype=np.float32)[None]
            sheet.paste(heated(Image.new("RGB", BAR, "#c8c8c8"), ramp), (round(x), y + 1))
            x += BAR[0] + 8
        write(pen, (x, y), sheet.width, part, lettering, GREY)
        x += width_of(part, lettering) + 8
