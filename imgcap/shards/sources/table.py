"""Caption tables, one caption a line, in every layout that Flickr8k and Flickr30k are handed round in.

| layout | first lines |
|---|---|
| CSV with a header | `image,caption` or `image,caption_number,caption,id`, in any order |
| token file | `1000268201.jpg#0<TAB>A child in a pink dress .` |
| pipes | `image_name| comment_number| comment`, then `1000092795.jpg| 0| Two young guys .` |
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Skipped
from imgcap.shards.sources.text_file import cleaned, read_text

_TOKEN_LINE = re.compile(r"^(?P<image>[^\t]+?)#\d+\t(?P<caption>.*)$")
# One line of Flickr30k's results.csv has lost the separator between number and caption: `2199200615.jpg| 4   A dog`.
_PIPE_LINE = re.compile(r"^(?P<image>[^|]+)\|\s*\d+\s*(\||\s|$)(?P<caption>.*)$")
_IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename")
_CAPTION_COLUMNS = ("caption", "comment")

Row = tuple[int, str, str]  # line number, image, caption


@dataclass(frozen=True)
class CaptionTable:
    """Captions by file name, both in the order of the file. An image may have lost all of its captions."""

    captions: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def read_table(path: Path) -> CaptionTable:
    """Read a caption table in whichever layout it is; `UserError` for one that is empty or in no known layout.

    Empty captions and lines that can't be read are skipped and named.
    """
    lines = _lines(read_text(path))
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise UserError(f"{path} is empty; give a file of captions with --captions")
    table = CaptionTable()
    for number, image, caption in _rows(path, lines, first):
        if not image:
            table.skipped.append(Skipped(f"{path.name} line {number}", "line without an image and a caption"))
            continue
        captions = table.captions.setdefault(image, [])
        if caption:
            captions.append(caption)
        else:
            table.skipped.append(Skipped(image, "empty caption"))
    if not any(table.captions.values()):
        raise UserError(f"{path} holds no captions below its header; give another file with --captions")
    return table


def _lines(text: str) -> list[str]:
    """Split a text at line feeds only: a caption may hold U+2028 and other characters that `splitlines` cuts at."""
    text = text.replace("\r\n", "\n")
    return text.replace("\r", " " if "\n" in text else "\n").split("\n")


def _rows(path: Path, lines: list[str], first: str) -> Iterator[Row]:
    if _TOKEN_LINE.match(first):
        return _matched_rows(lines, _TOKEN_LINE, header=False)
    if "|" in first:
        return _matched_rows(lines, _PIPE_LINE, header=not _PIPE_LINE.match(first))
    columns = [column.strip().lower() for column in next(csv.reader([first]))]
    image = next((columns.index(name) for name in _IMAGE_COLUMNS if name in columns), None)
    caption = next((columns.index(name) for name in _CAPTION_COLUMNS if name in columns), None)
    if image is None or caption is None:
        raise UserError(
            f"{path} starts with {first[:60]!r}, which is no known layout of captions; known are CSV with a header "
            "(image,caption), token files (name.jpg#0<TAB>caption) and name.jpg| 0| caption"
        )
    return _csv_rows(path, lines, len(columns), image, caption)


def _matched_rows(lines: list[str], pattern: re.Pattern[str], header: bool) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if header:
            header = False
            continue
        match = pattern.match(line)
        yield (number, match["image"].strip(), cleaned(match["caption"])) if match else (number, "", "")


def _csv_rows(path: Path, lines: list[str], columns: int, image: int, caption: int) -> Iterator[Row]:
    reader = csv.reader(line + "\n" for line in lines)
    try:
        for index, fields in enumerate(row for row in reader if any(field.strip() for field in row)):
            if index == 0:
                continue
            if len(fields) > columns and caption == columns - 1:  # commas in a caption that nobody quoted
                fields[caption:] = [",".join(fields[caption:])]
            if len(fields) != columns:
                yield reader.line_num, "", ""
            else:
                yield reader.line_num, fields[image].strip(), cleaned(fields[caption])
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; mend that line, a quote may not be closed") from None
