"""Tables of text: commas, semicolons, tabs or pipes, with a header or without, and the token files of Flickr.

| layout | first lines |
|---|---|
| CSV with a header | `image,caption` or `image,caption_number,caption,id`, in any order |
| token file | `1000268201.jpg#0<TAB>A child in a pink dress .` |
| pipes | `image_name| comment_number| comment`, then `1000092795.jpg| 0| Two young guys .` |
| without a header | `photos/1.jpg<TAB>A dog .` |

A quote that isn't closed would swallow the lines behind it: a cell may go on over several lines only where it ends as a
quoted cell does, and none of the lines is a row of its own.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import lines_of
from imgcap.shards.source import TOO_LONG
from imgcap.shards.sources.columns import Chosen, Columns, is_usual_name
from imgcap.shards.sources.splits import STANDARD_NAMES

_TOKEN_LINE = re.compile(r"^(?P<image>[^\t]+?)#\d+\t(?P<caption>.*)$")
# One line of Flickr30k's results.csv has lost the separator between number and caption: `2199200615.jpg| 4   A dog`.
_PIPE_LINE = re.compile(r"^(?P<image>[^|]+)\|\s*\d+\s*(\||\s|$)(?P<caption>.*)$")
_SEPARATORS = ("\t", "|", ";", ",")
_NAMES = {"tab": "\t", "\\t": "\t", "pipe": "|", "comma": ",", "semicolon": ";"}
_QUOTED = (",", ";")  # in tables of tabs and pipes a quote that isn't closed stands for itself
_LONGEST_CELL = 100  # lines
BROKEN = "line without an image and a caption"
UNCLOSED = "line with a quote that is not closed"

Row = tuple[int, Sequence[Any] | str]  # line number, cells; or why the line can't be read
IsImage = Callable[[str], bool]


@dataclass(frozen=True)
class Form:
    """How a text is cut into rows: its columns, the separator (or a pattern instead), whether its first line is one."""

    chosen: Chosen
    separator: str
    header: bool
    pattern: re.Pattern[str] | None = None


def form_of(path: Path, text: str, columns: Columns, is_image: IsImage) -> Form:
    """Find out how a text is cut into rows; `UserError` where it is empty or in no form that is known."""
    first = next((line for line in lines_of(text) if line.strip()), None)
    if first is None:
        raise UserError(f"{path} is empty; give a file of captions")
    if not columns.named and columns.separator is None:
        if _TOKEN_LINE.match(first):
            return Form(Chosen(("image", "caption"), 0, (1,)), "\t", False, _TOKEN_LINE)
        if _PIPE_LINE.match(first) or re.match(r"^image_name\s*\|\s*comment_number\s*\|\s*comment\s*$", first):
            return Form(Chosen(("image", "caption"), 0, (1,)), "|", not _PIPE_LINE.match(first), _PIPE_LINE)

    def names_picture(cell: str) -> bool:
        return is_image(cell) and not is_usual_name(cell)

    separators = _SEPARATORS if columns.separator is None else (_separator(columns.separator),)
    cut = {separator: _cut(first, separator) for separator in separators}
    for separator, cells in cut.items():
        chosen = columns.choose(cells)
        if chosen and not any(map(names_picture, cells)):
            return Form(chosen, separator, header=True)
    for separator, cells in cut.items():
        if len(cells) > 1 and (chosen := _without_header(cells, columns, names_picture)):
            return Form(chosen, separator, header=False)
    cells = max(cut.values(), key=len)
    if len(cells) > 1 and not any(map(names_picture, cells)):
        raise columns.refuse(str(path), cells)
    raise UserError(
        f"{path} starts with {first[:60]!r}, which is no known layout of captions; known are tables with a header "
        "(image,caption), rows of name and caption, token files (name.jpg#0<TAB>caption) and name.jpg| 0| caption; "
        "say more with --separator, --image-column and --caption-column"
    )


def rows_of(text: str, form: Form, is_image: IsImage) -> Iterator[Row]:
    """Yield the rows of a text, a cell a column; a line that can't be read comes with the reason instead."""
    lines = lines_of(text)
    number, header = 0, form.header
    while number < len(lines):
        line, taken = lines[number], 1
        if line.strip(f"{form.separator} \t"):
            row: Sequence[str] | str
            if form.pattern:
                match = form.pattern.match(line)
                row = (match["image"], match["caption"]) if match else BROKEN
            else:
                row, taken = _row(lines, number, form, is_image)
            if header:
                header = False
            else:
                yield number + taken, row
        number += taken


def _row(lines: list[str], start: int, form: Form, is_image: IsImage) -> tuple[Sequence[str] | str, int]:
    """Read the row that starts at a line; return it, and how many lines it took."""
    line, separator, columns = lines[start], form.separator, len(form.chosen.names)
    if '"' not in line:
        return _fitted(line.split(separator), form), 1
    try:
        return _fitted(next(csv.reader([line], delimiter=separator, strict=True)), form), 1
    except csv.Error as error:
        if "field larger" in str(error):
            return TOO_LONG, 1
        open_quote = "unexpected end" in str(error)
    if not open_quote:  # a quote within a cell: read as it has always been, or, between tabs and pipes, as it stands
        plain = next(csv.reader([line], delimiter=separator)) if separator in _QUOTED else line.split(separator)
        return _fitted(plain, form), 1
    for end in range(start + 2, min(start + _LONGEST_CELL, len(lines)) + 1):
        later = lines[end - 1].split(separator)
        if len(later) >= columns and is_image(later[form.chosen.image].strip()):
            break
        try:
            cells = next(csv.reader(["\n".join(lines[start:end])], delimiter=separator, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue
            break
        if len(cells) == columns:
            return cells, end - start
        break
    return (UNCLOSED if separator in _QUOTED else _fitted(line.split(separator), form)), 1


def _fitted(cells: list[str], form: Form) -> Sequence[str] | str:
    """Join what stands behind the last column, a caption whose commas nobody quoted; a reason where cells lack."""
    columns = len(form.chosen.names)
    if len(cells) > columns and form.chosen.captions[-1] == columns - 1:
        cells[columns - 1 :] = [form.separator.join(cells[columns - 1 :])]
    return cells if len(cells) == columns else BROKEN


def _without_header(cells: list[str], columns: Columns, is_image: IsImage) -> Chosen | None:
    """Choose the columns, called 1, 2, 3 …, of a table whose first line is a row; none where that isn't clear."""
    names = [str(number) for number in range(1, len(cells) + 1)]
    if columns.named:
        return columns.choose(names) if all(name.isdecimal() for _, name in columns.named) else None
    images = [name for name, cell in zip(names, cells, strict=True) if is_image(cell.strip())]
    splits = [name for name, cell in zip(names, cells, strict=True) if cell.strip().lower() in STANDARD_NAMES]
    texts = [name for name in names if name not in images + splits]
    if len(images) != 1 or len(texts) != 1 or len(splits) > 1:
        return None
    return Columns(images[0], (texts[0],), splits[0] if splits else None).choose(names)


def _cut(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
    except csv.Error:
        return [cell.strip() for cell in line.split(separator)]


def _separator(given: str) -> str:
    separator = _NAMES.get(given.lower(), given)
    if len(separator) != 1:
        raise UserError(f"--separator {given!r} is none; give one character, or {', '.join(_NAMES)}")
    return separator
