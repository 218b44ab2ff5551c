"""Sample sheets and attention: right sizes, and light where the decoder looked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgcap.monitor import attention, draw_attention, draw_sheet, samples
from imgcap.monitor.lettering import font, wrap

GREY = Image.new("RGB", (96, 96), (128, 128, 128))


@given(st.text(max_size=200), st.integers(30, 300))
def test_wrapped_text_is_all_there_and_fits(text: str, width: int) -> None:
    lettering = font(13)
    lines = wrap(text, lettering, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(lettering.getlength(line) <= width or len(line) == 1 for line in lines)


def test_lines_are_filled_greedily() -> None:
    lettering = font(16)
    width = int(lettering.getlength("a red circle")) + 1
    assert wrap("a red circle left of it", lettering, width) == ["a red circle", "left of it"]


@pytest.mark.parametrize("size", [(96, 96), (1600, 1200), (300, 900), (900, 300)])
def test_a_picture_fills_its_box_whatever_its_size(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (250, 10, 10))
    pixels = np.asarray(draw_sheet([(picture, "", [])])).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert max(height, width) == samples.WIDTH
    assert abs(width / height - size[0] / size[1]) < 0.02 * size[0] / size[1]
    left, right = columns[0], pixels.shape[1] - 1 - columns[-1]
    assert abs(left - right) <= 1


def test_a_sheet_shows_each_caption() -> None:
    one = np.asarray(draw_sheet([(GREY, "a red circle", ["a circle"])]))
    for other in [("a blue circle", ["a circle"]), ("a red circle", ["one circle"]), ("a red circle", [])]:
        sheet = np.asarray(draw_sheet([(GREY, *other)]))
        assert sheet.shape != one.shape or (sheet != one).any()


def test_many_cards_make_rows() -> None:
    card = (GREY, "a red circle", ["a circle"])
    sheets = {count: draw_sheet([card] * count) for count in (1, 2, 4, 5, 6, 8, 9)}
    assert sheets[1].width < sheets[2].width < sheets[4].width == sheets[5].width == sheets[8].width
    assert sheets[6].width == sheets[9].width < sheets[4].width
    assert sheets[1].height == sheets[4].height < sheets[5].height == sheets[6].height < sheets[9].height


@pytest.mark.parametrize("grid", [(3, 3), (7, 7), (4, 6)])
def test_the_overlay_is_brightest_where_the_attention_is(grid: tuple[int, int]) -> None:
    cells = grid[0] * grid[1]
    words = [f"w{cell}" for cell in range(cells)]
    sheet = draw_attention(GREY, words, np.eye(cells, dtype=np.float32), grid)
    light = np.asarray(sheet.convert("L")).astype(float)
    step_y, step_x = attention.SIDE + attention.LABEL + attention.GAP, attention.SIDE + attention.GAP
    for cell in range(cells):
        row, column = divmod(cell + 1, attention.COLUMNS)  # panel 0 is the picture itself
        y, x = attention.MARGIN + row * step_y, attention.MARGIN + column * step_x
        panel = light[y : y + attention.SIDE, x : x + attention.SIDE]
        brightest = np.argwhere(panel >= panel.max() - 0.5).mean(0) / attention.SIDE * grid
        assert tuple(brightest.astype(int)) == divmod(cell, grid[1])
        assert panel.max() > 2 * panel.min()


def test_attention_is_drawn_for_words_only() -> None:
    maps = np.random.default_rng(0).random((6, 9), dtype=np.float32)
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) == draw_attention(GREY, ["a", "b"], maps[:2], (3, 3))
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) != draw_attention(GREY, ["a", "b"], maps[2:], (3, 3))


def test_an_even_look_is_even_light() -> None:
    picture = np.asarray(draw_attention(GREY, ["a"], np.full((1, 4), 0.25), (2, 2)))
    x = attention.MARGIN + attention.SIDE + attention.GAP
    panel = picture[attention.MARGIN : attention.MARGIN + attention.SIDE, x : x + attention.SIDE]
    assert (panel == panel[0, 0]).all() and panel.mean() > 100
