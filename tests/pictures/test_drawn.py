"""Sample sheets and attention: right sizes, and light where the decoder looked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, features

from imgcap.pictures import attention
from imgcap.pictures import sheet as samples
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.lettering import as_seen, font, is_right_to_left, width_of, wrap
from imgcap.pictures.sheet import draw_sheet

GREY = Image.new("RGB", (96, 96), (128, 128, 128))


@given(st.text(max_size=200), st.integers(30, 300))
def test_wrapped_text_is_all_there_and_fits(text: str, width: int) -> None:
    lettering = font(13)
    lines = wrap(text, lettering, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width_of(line, lettering) <= width or len(line) == 1 for line in lines)


def test_lines_are_filled_greedily() -> None:
    lettering = font(16)
    width = int(lettering.getlength("a red circle")) + 1
    assert wrap("a red circle left of it", lettering, width) == ["a red circle", "left of it"]


ARABIC = "دائرة حمراء فوق مربع أزرق صغير"  # a red circle above a small blue square


def test_arabic_letters_are_joined_and_in_the_order_of_reading() -> None:
    initial_meem, final_reh, initial_beh, final_ain = "\ufee3\ufeae\ufe91\ufeca"
    assert as_seen("مربع", True) == final_ain + initial_beh + final_reh + initial_meem
    assert as_seen("لا", True) == "\ufefb", "lam and alef are one letter form"
    seen = as_seen(f"{ARABIC} (RGB 12).", True)
    assert seen.startswith(".(RGB 12)"), "Latin words and numbers keep their order, brackets turn round"
    assert as_seen("a red (small) circle") == "a red (small) circle"


def test_the_first_letter_with_a_direction_decides() -> None:
    assert [is_right_to_left(text) for text in (ARABIC, "3 שלום", "(RGB) مربع", "a مربع", "12 .", "", "Ünï")] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow can't join letters by itself here")
def test_arabic_looks_as_pillow_draws_it_where_it_can() -> None:
    def ink(text: str, lettering: ImageFont.FreeTypeFont, **options: str) -> np.ndarray:
        canvas = Image.new("L", (600, 60))
        ImageDraw.Draw(canvas).text((10, 10), text, font=lettering, fill=255, **options)
        return np.asarray(canvas.crop(canvas.getbbox()).resize((300, 40))) / 255

    raqm = ImageFont.truetype(font(28).path, 28, layout_engine=ImageFont.Layout.RAQM)
    wanted = ink(ARABIC, raqm, direction="rtl")
    alike = {
        name: np.corrcoef(ink(text, font(28)).ravel(), wanted.ravel())[0, 1]
        for name, text in {"ours": as_seen(ARABIC, True), "single letters": ARABIC[::-1], "no order": ARABIC}.items()
    }
    assert alike.pop("ours") > 0.8 and max(alike.values()) < 0.5, alike  # kerning differs a little


def test_arabic_captions_stand_on_the_right() -> None:
    def margins(caption: str) -> tuple[int, int]:
        sheet = np.asarray(draw_sheet([(GREY, caption, [])]).convert("L"))
        text = sheet[samples.MARGIN + samples.WIDTH + 4 :, samples.MARGIN : samples.MARGIN + samples.WIDTH]
        columns = np.flatnonzero((text < 128).any(0))
        return columns[0], samples.WIDTH - 1 - columns[-1]

    left, right = margins("مربع أزرق")
    assert right < 4 and left > 100
    left, right = margins("a blue square")
    assert left < 4 and right > 100


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


def test_panels_of_an_arabic_caption_go_from_right_to_left() -> None:
    words, step = ARABIC.split(), attention.SIDE + attention.GAP
    sheet = np.asarray(draw_attention(GREY, words, np.eye(len(words), 9, dtype=np.float32), (3, 3)))
    panels = [sheet[attention.MARGIN :, attention.MARGIN + column * step :] for column in range(attention.COLUMNS)]
    panels = [panel[: attention.SIDE, : attention.SIDE] for panel in panels]
    assert (panels[-1] == 128).all(), "the picture itself stands first, on the right"
    brightest = [np.argwhere(panel[..., 0] == panel[..., 0].max()).mean(0)[1] for panel in panels[::-1][1:4]]
    assert brightest == sorted(brightest), "its first word looked at the left cell, the second at the middle one"


def test_attention_is_drawn_for_words_only() -> None:
    maps = np.random.default_rng(0).random((6, 9), dtype=np.float32)
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) == draw_attention(GREY, ["a", "b"], maps[:2], (3, 3))
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) != draw_attention(GREY, ["a", "b"], maps[2:], (3, 3))


def test_an_even_look_is_even_light() -> None:
    picture = np.asarray(draw_attention(GREY, ["a"], np.full((1, 4), 0.25), (2, 2)))
    x = attention.MARGIN + attention.SIDE + attention.GAP
    panel = picture[attention.MARGIN : attention.MARGIN + attention.SIDE, x : x + attention.SIDE]
    assert (panel == panel[0, 0]).all() and panel.mean() > 100
