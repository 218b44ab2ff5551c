"""Parquet and Arrow tables, as Hugging Face datasets has them: images by name, or inside as `{bytes, path}`.

pyarrow is imported here alone, when there is such a table. Pictures are read one by one when the set is built.
"""

import functools
import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from imgcap.errors import UserError, needs, reason_of
from imgcap.shards.sources.columns import Chosen, Columns
from imgcap.shards.sources.delimited import Row
from imgcap.types import Stored

SUFFIXES = (".parquet", ".arrow", ".feather")
_BATCH = 1024  # rows; of pictures, fewer are in memory at a time
_PICTURES = 16


@dataclass(frozen=True)
class Cell:
    """A picture in a row of a table; read in any process."""

    table: Path
    column: str
    row: int

    def read_bytes(self) -> bytes:
        """Read the picture's bytes; OSError where the table can't be read or holds none there."""
        try:
            value = _cells(self.table, self.column).at(self.row)
        except _arrow().ArrowException as error:
            raise OSError(0, f"{self.table.name} row {self.row + 1}: {reason_of(error)}") from None
        data = value.get("bytes") if isinstance(value, dict) else value
        return bytes(data or b"")


@dataclass(frozen=True)
class ColumnarTable:
    """A table's rows with names in place of the images that lie in it, and where those lie by name."""

    chosen: Chosen
    rows: Iterator[Row]
    stored: dict[str, Stored]


def choose_columns(path: Path, columns: Columns) -> Chosen:
    """Choose the columns of a table by its schema; `UserError` where image or captions aren't found."""
    schema = _opened(path).schema
    types = _arrow().types
    inside = [field.name for field in schema if _is_picture(field.type)]
    texts = [
        field.name
        for field in schema
        if types.is_list(field.type) and types.is_string(field.type.value_type) and field.name.startswith("caption")
    ]
    image = inside[0] if len(inside) == 1 else None
    chosen = columns.choose(schema.names, image, texts[:1])
    if chosen is None:
        raise columns.refuse(str(path), schema.names)
    return chosen


def read(path: Path, columns: Columns) -> ColumnarTable:
    """Open a table; its pictures are named by `path`, or by a hash of their bytes where that tells them not apart."""
    chosen = choose_columns(path, columns)
    name = chosen.names[chosen.image]
    opened, stored = _opened(path), dict[str, Stored]()
    if not _holds_pictures(opened, name):
        return ColumnarTable(chosen, _rows(opened, chosen, None), stored)
    names = _names(opened, path, name, stored)
    return ColumnarTable(chosen, _rows(opened, chosen, names), stored)


def _rows(opened: "_Opened", chosen: Chosen, names: list[str] | None) -> Iterator[Row]:
    used = [chosen.names[place] for place in (*chosen.captions, *([] if chosen.split is None else [chosen.split]))]
    if names is None:
        used.append(chosen.names[chosen.image])
    for number, values in enumerate(opened.rows(list(dict.fromkeys(used)), _BATCH)):
        cells = [values.get(column) for column in chosen.names]
        image = cells[chosen.image]
        cells[chosen.image] = names[number] if names else image.get("path") if isinstance(image, dict) else image
        yield number + 1, cells


def _names(opened: "_Opened", path: Path, column: str, stored: dict[str, Stored]) -> list[str]:
    """Name the picture of each row, and say where it lies. Equal pictures of one name are one."""
    part = f"{column}.path"
    has_paths = _arrow().types.is_struct(kind := opened.schema.field(column).type) and kind.get_field_index("path") >= 0
    paths = (
        [str((values[column] or {}).get("path") or "") for values in opened.rows([part], _BATCH)] if has_paths else []
    )
    paths = paths or [""] * len(opened)
    times, names = Counter(paths), list(paths)
    doubtful = {row for row, given in enumerate(paths) if not given or times[given] > 1}
    if doubtful:
        hashes = _hashes(opened, column, doubtful)
        apart: dict[str, set[str]] = {}
        for row in doubtful:
            apart.setdefault(paths[row], set()).add(hashes[row])
        for row in sorted(doubtful):
            if not hashes[row]:  # a row without a picture
                names[row] = paths[row]
            elif not paths[row]:
                names[row] = hashes[row]
            elif len(apart[paths[row]]) > 1:
                names[row] = f"{Path(paths[row]).stem}-{hashes[row]}{Path(paths[row]).suffix}"
    for row, given in enumerate(names):
        if given:
            stored.setdefault(given, Cell(path.absolute(), column, row))
    return names


def _hashes(opened: "_Opened", column: str, rows: set[int]) -> dict[int, str]:
    """Hash the pictures of some rows, by their bytes; empty for a row without one."""
    found = {}
    for row, values in enumerate(opened.rows([column], _PICTURES)):
        if row in rows:
            value = values[column]
            data = value.get("bytes") if isinstance(value, dict) else value
            found[row] = hashlib.sha256(data).hexdigest()[:16] if data else ""
    return found


def _holds_pictures(opened: "_Opened", column: str) -> bool:
    """Whether a column holds the bytes of pictures; else it names files, as text or as a `path` without `bytes`."""
    if not _is_picture(opened.schema.field(column).type):
        return False
    first = opened.at(column, 0) if len(opened) else None
    return not (isinstance(first, dict) and first.get("bytes") is None and first.get("path"))


def _is_picture(kind: Any) -> bool:
    types = _arrow().types
    if types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


class _Opened:
    """A Parquet or Arrow file: its schema, its rows in batches, one row by its number."""

    def __init__(self, path: Path) -> None:
        arrow, self._path = _arrow(), path
        self._parquet = path.suffix.lower() == ".parquet"
        if self._parquet:
            from pyarrow import parquet

            self._file = parquet.ParquetFile(path, memory_map=True)
            self.schema = self._file.schema_arrow
            groups = range(self._file.num_row_groups)
            self._ends = list(accumulate(self._file.metadata.row_group(group).num_rows for group in groups))
        else:
            mapped = arrow.memory_map(str(path))
            try:
                self._table = arrow.ipc.open_stream(mapped).read_all()  # as datasets writes them
            except arrow.ArrowInvalid:
                self._table = arrow.ipc.open_file(mapped).read_all()
            self._table.validate(full=True)  # reading behind a wrong offset would end the process
            self.schema = self._table.schema
        self._group: tuple[int, str, Any] = (-1, "", None)  # the last that was read

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows if self._parquet else self._table.num_rows)

    def rows(self, columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        """Yield the rows, of some columns (`image.path`: a part of one), `size` in memory at a time."""
        with _readable(self._path):
            yield from self._rows(columns, size)

    def _rows(self, columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        if self._parquet:
            batches = self._file.iter_batches(size, columns=columns, use_threads=False)
        else:
            whole = [column if column in self.schema.names else column.rpartition(".")[0] for column in columns]
            batches = self._table.select(whole).to_batches(max_chunksize=size)
            if whole != columns:
                yield from ({whole[0]: {"path": path}} for path in self._paths(whole[0]))
                return
        for batch in batches:
            yield from batch.to_pylist()

    def _paths(self, column: str) -> list[str]:
        """The names in an Arrow table's image column; its bytes stay where they are."""
        return [
            path
            for chunk in self._table.column(column).chunks
            for path in _arrow().compute.struct_field(chunk, "path").to_pylist()
        ]

    def at(self, column: str, row: int) -> Any:
        if not self._parquet:
            return self._table.column(column)[row].as_py()
        group = bisect_right(self._ends, row)
        if self._group[:2] != (group, column):
            self._group = (group, column, self._file.read_row_group(group, [column], use_threads=False).column(0))
        return self._group[2][row - (self._ends[group - 1] if group else 0)].as_py()


@dataclass(frozen=True)
class _Cells:
    opened: _Opened
    column: str

    def at(self, row: int) -> Any:
        return self.opened.at(self.column, row)


@functools.lru_cache(maxsize=4)
def _cells(path: Path, column: str) -> _Cells:
    return _Cells(_opened(path), column)


def _opened(path: Path) -> _Opened:
    with _readable(path):
        return _Opened(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Context in which a table is read; `UserError` where its bytes are none, or damaged."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path") from None
    except (OSError, UnicodeDecodeError, _arrow().ArrowException) as error:
        raise UserError(
            f"{path} is no Parquet or Arrow table that can be read ({reason_of(error)}); fetch it again"
        ) from None


@functools.cache
def _arrow() -> Any:
    needs("a Parquet or Arrow table", "pyarrow")
    import pyarrow
    import pyarrow.compute
    import pyarrow.ipc
    import pyarrow.types

    return pyarrow
