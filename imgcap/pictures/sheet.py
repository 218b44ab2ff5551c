"""Drawing a sheet of pictures, each with the caption a model gave it and what people wrote."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

from imgcap.pictures.lettering import font, is_right_to_left, wrap, write

WIDTH, GAP, MARGIN = 264, 26, 30  # pixels: a picture's box, between cards, around the sheet
LEADING = 1.32
COLUMNS = 4
REFERENCES = 3  # shown of each picture
PAPER, INK, GREY, EDGE = "#ffffff", "#1b1f24", "#6b7480", "#d5dae1"


@dataclass(frozen=True)
class _Line:
    text: str
    size: int
    bold: bool = False
    colour: str = GREY
    right_to_left: bool = False

    @property
    def height(self) -> int:
        return round(self.size * LEADING)


@dataclass(frozen=True)
class _Card:
    picture: Image.Image
    lines: list[_Line]

    @property
    def height(self) -> int:
        return self.picture.height + 12 + sum(line.height for line in self.lines)


def draw_sheet(samples: Sequence[tuple[Image.Image, str, Sequence[str]]]) -> Image.Image:
    """Draw (picture, hypothesis, references) cards, at most four a row. Pictures of any size fit a common width."""
    assert samples, "a sheet needs a sample"
    cards = [_card(*sample) for sample in samples]
    columns = min(3 if len(cards) % COLUMNS and len(cards) % 3 == 0 else COLUMNS, len(cards))  # 3 if that leaves no gap
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1)), PAPER)
    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            _draw(sheet, card, MARGIN + column * (WIDTH + GAP), y)
        y += height + GAP
    return sheet


def _card(picture: Image.Image, hypothesis: str, references: Sequence[str]) -> _Card:
    fitted = ImageOps.contain(picture.convert("RGB"), (WIDTH, WIDTH), Image.Resampling.LANCZOS)
    lines = _lines(hypothesis or "(no words)", 16, True, INK)
    for reference in references[:REFERENCES]:
        lines += [_Line("", 5), *_lines(reference, 13, False, GREY)]
    return _Card(fitted, lines)


def _lines(caption: str, size: int, bold: bool, colour: str) -> list[_Line]:
    right_to_left = is_right_to_left(caption)
    return [_Line(line, size, bold, colour, right_to_left) for line in wrap(caption, font(size, bold), WIDTH)]


def _draw(sheet: Image.Image, card: _Card, x: int, y: int) -> None:
    pen = ImageDraw.Draw(sheet)
    left = x + (WIDTH - card.picture.width) // 2
    sheet.paste(card.picture, (left, y))
    pen.rectangle((left - 1, y - 1, left + card.picture.width, y + card.picture.height), outline=EDGE)
    y += card.picture.height + 12
    for line in card.lines:
        write(pen, (x, y), WIDTH, line.text, font(line.size, line.bold), line.colour, line.right_to_left)
        y += line.height
