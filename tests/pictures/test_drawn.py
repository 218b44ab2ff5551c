"""Sample sheets and attention: right sizes, nothing cut, and heat where the decoder looked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageDraw, ImageFont, features

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


def test_a_heading_says_what_is_seen_and_nothing_is_cut() -> None:
    card = (GREY, "a red circle " * 9, ["one " * 40] * 8)
    bare, headed = draw_sheet([card] * 3), draw_sheet([card] * 3, "a run with a name " * 12, "what the sheet shows")
    assert headed.width == bare.width and headed.height > bare.height + 2 * samples.HEADING
    below = headed.crop((0, headed.height - bare.height + samples.MARGIN, headed.width, headed.height))
    assert below.tobytes() == bare.crop((0, samples.MARGIN, bare.width, bare.height)).tobytes(), (
        "the cards are the same"
    )
    assert frame_is_clear(headed, samples.MARGIN - 2)
    assert draw_sheet([(GREY, "a", ["b"] * 5)]).height < draw_sheet([(GREY, "a", ["b"] * 6)]).height, "'and 1 more'"


def frame_is_clear(sheet: Image.Image, wide: int) -> bool:
    """Whether a margin is as white as paper, so that nothing is cut off at it."""
    pixels = np.asarray(sheet).copy()
    pixels[wide:-wide, wide:-wide] = 255
    return bool((pixels == 255).all())


def panels_of(sheet: Image.Image) -> list[tuple[int, int, np.ndarray]]:
    """Left, top and pixels of each panel of an attention picture, found by their edges, line by line."""
    edge = (np.asarray(sheet) == np.array(ImageColor.getrgb(attention.EDGE))).all(-1)
    inner = edge[1:-1, 1:-1] & edge[1:-1, 2:] & edge[2:, 1:-1] & ~edge[1:-1, :-2] & ~edge[:-2, 1:-1]
    found = []
    for y, x in np.argwhere(inner) + 1:
        width, height = np.argmin(edge[y, x:]), np.argmin(edge[y:, x])
        found.append((int(x), int(y), np.asarray(sheet)[y + 1 : y + height - 1, x + 1 : x + width - 1].astype(int)))
    return sorted(found, key=lambda panel: (panel[1] + len(panel[2]), panel[0]))  # they end on one line


def hottest(panel: np.ndarray, grid: tuple[int, int]) -> tuple[int, ...]:
    """The cell of the grid that lies in the middle of a panel's yellow."""
    yellow = panel[..., 0] - panel[..., 2]
    return tuple((np.argwhere(yellow >= yellow.max() - 1).mean(0) / panel.shape[:2] * grid).astype(int))


@pytest.mark.parametrize("shade", [10, 128, 250])
@pytest.mark.parametrize("grid", [(3, 3), (7, 7), (4, 6)])
def test_it_is_hottest_where_the_attention_is(grid: tuple[int, int], shade: int) -> None:
    cells = grid[0] * grid[1]
    picture = Image.new("RGB", (96, 96), (shade,) * 3)
    sheet = draw_attention(picture, [f"w{cell}" for cell in range(cells)], np.eye(cells, dtype=np.float32), grid)
    shown, *panels = [pixels for _, _, pixels in panels_of(sheet)]
    assert (shown == shade).all(), "the picture itself comes first"
    assert [hottest(panel, grid) for panel in panels] == [divmod(cell, grid[1]) for cell in range(cells)]


def test_a_dark_picture_can_be_recognised() -> None:
    generator = np.random.default_rng(0)
    dark = np.kron(generator.integers(0, 16, (10, 10)), np.ones((20, 20))).astype(np.uint8)
    picture = Image.fromarray(dark).convert("RGB")
    map_LP = np.zeros((1, 4), np.float32)
    map_LP[0, 0] = 1  # the upper left; what is right of it is left as it is
    _, (_, _, panel) = panels_of(draw_attention(picture, ["dog"], map_LP, (2, 2)))
    calm = panel[:, 160:].mean(-1)
    assert calm.mean() > 100 > 10 * dark.mean()
    assert np.corrcoef(calm.ravel(), dark[:, 160:].ravel())[0, 1] > 0.85
    under_heat = panel[:40, :40].mean(-1)
    assert np.corrcoef(under_heat.ravel(), dark[:40, :40].ravel())[0, 1] > 0.85, "also below the hottest colour"


def test_function_words_of_the_language_are_smaller() -> None:
    def widths(words: list[str], language: str) -> list[int]:
        maps = np.full((len(words), 4), 0.25)
        return [
            panel.shape[1] for _, _, panel in panels_of(draw_attention(GREY, words, maps, (2, 2), language=language))
        ]

    small, large = attention.SMALL_SIDE, attention.SIDE
    assert widths(["the", "dog", "on", "two", "."], "en") == [large, small, large, small, large, small]
    assert widths(["die", "Katze"], "de") == [large, small, large]
    assert widths(["die", "Katze"], "xx") == [large, large, large]


def test_panels_of_an_arabic_caption_go_from_right_to_left() -> None:
    words = ARABIC.split()
    sheet = draw_attention(GREY, words, np.eye(len(words), 9, dtype=np.float32), (3, 3), language="ar")
    panels = panels_of(sheet)
    first = [panel for panel in panels if panel[1] == panels[0][1]][::-1]
    assert (first[0][2] == 128).all() and first[0][0] > sheet.width / 2, "the picture itself stands first, on the right"
    assert [hottest(panel, (3, 3)) for _, _, panel in first[1:]] == [divmod(cell, 3) for cell in range(len(first) - 1)]


LONG = "a very long caption of twenty words that goes on and on until nobody who has begun reads it any more ."


@pytest.mark.parametrize("size", [(96, 96), (900, 150), (150, 900), (2000, 20), (1, 300)])
@pytest.mark.parametrize(
    "caption", ["dog", LONG, "a Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen", ARABIC, ""]
)
def test_nothing_is_cut_and_each_word_has_a_panel(caption: str, size: tuple[int, int]) -> None:
    words = caption.split()
    sheet = draw_attention(
        Image.new("RGB", size, (90, 120, 150)), words, np.full((len(words), 4), 0.25), (2, 2), file="photo-" * 60
    )
    assert frame_is_clear(sheet, attention.MARGIN - 2)
    panels = panels_of(sheet)
    assert len(panels) == len(words) + 1
    assert sheet.width <= attention.WIDEST + 2 * attention.MARGIN
    areas = [panel.shape[0] * panel.shape[1] for _, _, panel in panels]
    assert max(areas) <= 1.1 * attention.SIDE**2
    for x, y, panel in panels:  # no panel lies over another
        others = [(left, top, other.shape) for left, top, other in panels if (left, top) != (x, y)]
        assert not any(
            x < left + shape[1] and left < x + panel.shape[1] and y < top + shape[0] and top < y + panel.shape[0]
            for left, top, shape in others
        )


def test_the_scale_runs_through_all_colours() -> None:
    sheet = draw_attention(GREY, ["dog"], np.zeros((1, 4)), (2, 2))
    bottom = np.asarray(sheet)[-attention.MARGIN - attention.BAR[1] - 8 :].astype(int)
    spread = bottom.max(-1) - bottom.min(-1)
    row = np.argwhere(spread == spread.max())[0, 0]
    coloured = bottom[row][spread[row] > 20]
    assert len(coloured) > 0.7 * attention.BAR[0], "as wide as a scale"
    assert (np.diff(coloured[:, 0] - coloured[:, 2]) >= -1).mean() > 0.8, "from blue to yellow"


def test_caption_and_file_stand_above() -> None:
    maps = np.full((1, 4), 0.25)
    plain, named = (draw_attention(GREY, ["dog"], maps, (2, 2), file=file) for file in ("", "dog.jpg"))
    assert named.height > plain.height
    other = draw_attention(GREY, ["dog"], maps, (2, 2), caption="a dog")
    assert other.size == plain.size and other != plain
    assert draw_attention(GREY, ["dog"], maps, (2, 2), caption="dog") == plain


def test_attention_is_drawn_for_words_only() -> None:
    maps = np.random.default_rng(0).random((6, 9), dtype=np.float32)
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) == draw_attention(GREY, ["a", "b"], maps[:2], (3, 3))
    assert draw_attention(GREY, ["a", "b"], maps, (3, 3)) != draw_attention(GREY, ["a", "b"], maps[2:], (3, 3))


def test_an_even_look_is_even_heat() -> None:
    _, (_, _, panel) = panels_of(draw_attention(GREY, ["dog"], np.full((1, 4), 0.25), (2, 2)))
    assert (panel == panel[0, 0]).all() and panel[0, 0, 0] > panel[0, 0, 2] + 80
