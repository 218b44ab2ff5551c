"""Drawing where a decoder looked for each word, over the picture (after Show, Attend and Tell, figure 2)."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from imgcap.pictures.lettering import as_seen, font, is_right_to_left, wrap

SIDE, GAP, MARGIN, LABEL = 200, 18, 28, 30  # pixels: a panel, between panels, around, the word below
COLUMNS = 5
PAPER, INK = "#ffffff", "#1b1f24"
GLOW = np.array([255.0, 214.0, 92.0])


def draw_attention(
    image: Image.Image, words: list[str], attention_LP: np.ndarray, grid: tuple[int, int]
) -> Image.Image:
    """Draw the picture, then a panel for each word: bright where the decoder looked, dim elsewhere.

    Panels follow each other as the words do: from right to left where the caption is written so.
    `attention_LP` has at least a row for each word; a row's cells lie in `grid` (rows, columns).
    """
    assert len(attention_LP) >= len(words), (attention_LP.shape, words)
    picture = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    maps = np.asarray(attention_LP, dtype=np.float32).reshape(len(attention_LP), *grid)
    panels = [("", picture)] + [(word, _overlay(picture, map_)) for word, map_ in zip(words, maps, strict=False)]
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = picture.width + GAP, picture.height + LABEL
    sheet = Image.new("RGB", (2 * MARGIN + columns * width - GAP, 2 * MARGIN + rows * (height + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    mirrored = is_right_to_left(" ".join(words))
    for place, (word, panel) in enumerate(panels):
        row, column = divmod(place, columns)
        column = columns - 1 - column if mirrored else column
        x, y = MARGIN + column * width, MARGIN + row * (height + GAP)
        sheet.paste(panel, (x, y))
        label = as_seen("".join(wrap(word, font(17), picture.width)[:1]))
        pen.text((x + picture.width / 2, y + picture.height + 7), label, font=font(17), fill=INK, anchor="ma")
    return sheet


def light(map_XY: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map of attention to a picture's `size` (width, height): (height, width), 1 where it is brightest."""
    light_HW = np.asarray(Image.fromarray(map_XY).resize(size, Image.Resampling.BILINEAR))
    return (light_HW / max(float(light_HW.max()), 1e-12)).clip(0, 1)


def _overlay(picture: Image.Image, map_: np.ndarray) -> Image.Image:
    """Light up a grey, dimmed picture in proportion to a map of attention, whose maximum is full light."""
    light_HW1 = light(map_, picture.size)[..., None]
    pixels = np.asarray(picture, dtype=np.float32)
    dim = 0.45 * pixels.mean(axis=-1, keepdims=True)
    lit = 0.78 * pixels + 0.22 * GLOW
    return Image.fromarray((dim * (1 - light_HW1) + lit * light_HW1).round().astype(np.uint8))
