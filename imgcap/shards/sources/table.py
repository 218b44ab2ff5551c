"""Caption tables of every sort, read alike: text with separators, JSON lines, JSON, Parquet and Arrow.

A row holds an image, one caption or a list of them, and perhaps a split. JSON is a list of such objects, or one object
of names and captions.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import lines_of, read_json, read_text
from imgcap.pictures.formats import SUFFIXES
from imgcap.shards.source import Skipped
from imgcap.shards.sources import columnar
from imgcap.shards.sources.columns import USUAL, Chosen, Columns
from imgcap.shards.sources.delimited import BROKEN, IsImage, Row, form_of, rows_of
from imgcap.shards.sources.splits import SplitOf, is_standard, standard_split
from imgcap.shards.sources.text_file import captions_in
from imgcap.types import Stored

JSON_LINES = (".jsonl", ".ndjson")
DELIMITED = (".csv", ".tsv", ".psv", ".txt", ".token")
COLUMNAR = columnar.SUFFIXES


@dataclass
class CaptionTable:
    """Captions by file name, both in the order of the file. An image may have lost all of its captions."""

    chosen: Chosen
    captions: dict[str, list[str]] = field(default_factory=dict)
    split_of: SplitOf = field(default_factory=dict)  # empty where the table has no column of splits
    skipped: list[Skipped] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # where an image comes first: `captions.csv line 3`
    stored: dict[str, Stored] = field(default_factory=dict)  # images that lie in the table itself
    name_splits: list[str] = field(default_factory=list)  # columns that do in every row, and were not asked for

    @property
    def has_splits(self) -> bool:
        return self.chosen.split is not None


def looks_like_image(cell: str) -> bool:
    """Whether a cell names a picture, by its suffix."""
    return Path(cell).suffix.lower() in SUFFIXES


def read_table(path: Path, columns: Columns = USUAL, is_image: IsImage = looks_like_image) -> CaptionTable:
    """Read a caption table of whichever sort it is; `UserError` for one that is empty or in no known layout.

    Empty captions and lines that can't be read are skipped and named. `UserError` for a split that isn't known, and for
    an image in two.
    """
    rows: Iterable[Row]
    if path.suffix.lower() in COLUMNAR:
        read = columnar.read(path, columns)
        table, rows = CaptionTable(read.chosen, stored=read.stored), read.rows
    else:
        chosen, rows = _text_rows(path, columns, is_image)
        table = CaptionTable(chosen)
    unit = "line" if path.suffix.lower() not in (*COLUMNAR, ".json") else "row"
    image_at, captions_at, split_at = table.chosen.image, table.chosen.captions, table.chosen.split
    may_split = set(range(len(table.chosen.names)) if split_at is None and columns.split is None else ())
    for number, row in rows:
        place = f"{path.name} {unit} {number}"
        image = "" if isinstance(row, str) else _name_in(row[image_at])
        if isinstance(row, str) or not image:
            reason = row if isinstance(row, str) else BROKEN
            table.skipped.append(Skipped(place, reason))
            continue
        may_split = {column for column in may_split if is_standard(row[column])}
        if image not in table.captions:
            table.captions[image], table.places[image] = [], place
        for column in captions_at:
            table.captions[image] += captions_in(row[column], image, table.skipped, place)
        if split_at is not None and row[split_at] not in (None, ""):
            _take_split(table, image, row[split_at], f"{path} {unit} {number}")
    table.name_splits = [table.chosen.names[column].strip() for column in sorted(may_split)]
    if not any(table.captions.values()):
        first = next(iter(table.skipped), None)
        told = f" (the first that was left out: {first.file_name}, {first.reason})" if first else ""
        raise UserError(f"{path} holds no captions below its header{told}; give another file")
    return table


def _name_in(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()  # a picture may be called 0


def choose_columns(path: Path, columns: Columns, is_image: IsImage = looks_like_image) -> Chosen:
    """Choose the columns of a table by its beginning; `UserError` where it holds no captions that are recognised."""
    if path.suffix.lower() in COLUMNAR:
        return columnar.choose_columns(path, columns)
    if path.suffix.lower() in (*JSON_LINES, ".json"):
        return _text_rows(path, columns, is_image)[0]
    return form_of(path, read_text(path), columns, is_image).chosen


def _text_rows(path: Path, columns: Columns, is_image: IsImage) -> tuple[Chosen, Iterable[Row]]:
    suffix = path.suffix.lower()
    if suffix in JSON_LINES or suffix == ".json":
        objects = list(_json_lines(path) if suffix in JSON_LINES else _json_rows(path, is_image))
        names = list(dict.fromkeys(name for _, item in objects if isinstance(item, dict) for name in item))
        chosen = columns.choose(names)
        if chosen is None:
            if not names:
                raise UserError(f"{path} holds no objects of image and caption; give another file")
            raise columns.refuse(str(path), names)
        return chosen, [
            (number, [item.get(name) for name in names] if isinstance(item, dict) else BROKEN)
            for number, item in objects
        ]
    text = read_text(path)
    form = form_of(path, text, columns, is_image)
    return form.chosen, rows_of(text, form, is_image)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines_of(read_text(path)), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _json_rows(path: Path, is_image: IsImage) -> Iterator[tuple[int, Any]]:
    content = read_json(path)
    if isinstance(content, dict) and content and all(map(is_image, content)):
        named = read_json(path, pairs=list)  # a name that comes twice is two entries
        content = [{"image": name, "caption": value} for name, value in named]
    yield from enumerate(content if isinstance(content, list) else [], 1)


def _take_split(table: CaptionTable, image: str, value: Any, place: str) -> None:
    mend = "Rename it, or say --split-column none to leave the column alone and cut by a seed"
    split = standard_split(value, f"{place}, column {table.chosen.used[-1]!r},", mend)
    if table.split_of.setdefault(image, split) != split:
        raise UserError(f"{place} puts {image} into {split}, a line before put it into another split; take one out")
