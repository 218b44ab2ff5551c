"""Drawing a sheet of pictures, each with the caption a model gave it and what people wrote."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from imgcap.pictures.lettering import font, is_right_to_left, wrap, write
from imgcap.pictures.normalise import within

WIDTH, GAP, MARGIN = 264, 26, 30  # pixels: a picture's box, between cards, around the sheet
LEADING = 1.32
COLUMNS = 4
REFERENCES = 5  # shown of each picture
HEADING, ABOUT = 22, 14  # sizes of letters above the cards
PAPER, INK, GREY, EDGE = "#ffffff", "#1b1f24", "#5c6570", "#d5dae1"


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


def draw_sheet(
    samples: Sequence[tuple[Image.Image, str, Sequence[str]]], heading: str = "", about: str = ""
) -> Image.Image:
    """Draw (picture, hypothesis, references) cards, at most four a row, below a heading and a line about them.

    Pictures of any size fit a common width; texts are broken into lines and never cut.
    """
    assert samples, "a sheet needs a sample"
    cards = [_card(*sample) for sample in samples]
    columns = min(3 if len(cards) % COLUMNS and len(cards) % 3 == 0 else COLUMNS, len(cards))  # 3 if that leaves no gap
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    across = columns * WIDTH + (columns - 1) * GAP
    head = [*_lines(heading, HEADING, True, INK, across), *_lines(about, ABOUT, False, GREY, across)]
    top = sum(line.height for line in head) + (18 if head else 0)
    size = 2 * MARGIN + across, 2 * MARGIN + top + sum(heights) + GAP * (len(rows) - 1)
    sheet = Image.new("RGB", size, PAPER)
    _write(sheet, head, MARGIN, MARGIN, across)
    y = MARGIN + top
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            _draw(sheet, card, MARGIN + column * (WIDTH + GAP), y)
        y += height + GAP
    return sheet


def _card(picture: Image.Image, hypothesis: str, references: Sequence[str]) -> _Card:
    fitted = within(picture.convert("RGB"), WIDTH)
    lines = _lines(hypothesis or "(no words)", 16, True, INK)
    more = [f"and {len(references) - REFERENCES} more"] if len(references) > REFERENCES else []
    for reference in [*references[:REFERENCES], *more]:
        lines += [_Line("", 5), *_lines(reference, 13, False, GREY)]
    return _Card(fitted, lines)


def _lines(text: str, size: int, bold: bool, colour: str, width: int = WIDTH) -> list[_Line]:
    right_to_left = is_right_to_left(text)
    return [_Line(line, size, bold, colour, right_to_left) for line in wrap(text, font(size, bold), width)]


def _draw(sheet: Image.Image, card: _Card, x: int, y: int) -> None:
    left = x + (WIDTH - card.picture.width) // 2
    sheet.paste(card.picture, (left, y))
    frame = left - 1, y - 1, left + card.picture.width, y + card.picture.height
    ImageDraw.Draw(sheet).rectangle(frame, outline=EDGE)
    _write(sheet, card.lines, x, y + card.picture.height + 12, WIDTH)


def _write(sheet: Image.Image, lines: list[_Line], x: int, y: int, width: int) -> None:
    pen = ImageDraw.Draw(sheet)
    for line in lines:
        write(pen, (x, y), width, line.text, font(line.size, line.bold), line.colour, line.right_to_left)
        y += line.height
