"""What is captioned so far, in a folder beside the file to be: a kill at any instant costs a batch at most.

`OUT.partial/` holds `settings.json` and, of each start and rank, a file in which every line is a finished batch: a
JSON object of rows by key. A torn line is no JSON, and so its batch is done again. Once all is done, `OUT` and
`OUT.summary.json` appear, each whole, and the folder goes.
"""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.durable import write_whole
from imgcap.files.locks import Lock

Row = dict[str, Any]  # `image` …, then `caption` and `score`, or `skipped` and why
FORMATS = (".jsonl", ".csv")
_UNWRITTEN = {"interpolation": "bilinear", "capital": False}  # what a record of before these keys was made with


class Journal:
    """Journal of finished batches; rank 0 begins and finishes it, and every rank appends to a file of its own."""

    def __init__(self, out: Path):
        if out.suffix not in FORMATS:
            raise UserError(f"--out {out} should end in {' or '.join(FORMATS)}, which decides the format")
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self.summary = out.with_name(f"{out.name}.summary.json")
        self._lock = Lock(self.folder / "lock")
        self._file: int | None = None

    def begin(self, settings: dict[str, Any], images: int) -> bool:
        """Take the place that rows will go to; False where the file is there already, made with the same settings.

        UserError where it was made, or begun, with other settings, or another process is at work on it.
        """
        if self.out.exists():
            _refuse_others(self.out, self.summary, {"images": images, **settings})
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire(wait=False):
            raise UserError(f"another process is captioning into {self.out}; wait for it, or choose another")
        begun = self.folder / "settings.json"
        if begun.exists():
            _refuse_others(self.folder, begun, settings)
        write_whole(begun, json.dumps(settings, indent=1))
        return True

    def read(self) -> dict[str, Row]:
        """Read the row of each key that is captioned or was skipped."""
        rows: dict[str, Row] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # torn
                    batch = json.loads(line)
                    rows |= {key: row for key, row in batch.items() if "caption" not in rows.get(key, {})}
        return rows

    def next_start(self) -> int:
        """Number the next start, as no earlier one was: its files' names have it."""
        return 1 + max((int(path.stem.partition("-")[0]) for path in self.folder.glob("*.jsonl")), default=-1)

    def open(self, start: int, rank: int) -> None:
        path = self.folder / f"{start:04d}-{rank:05d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, rows: dict[str, Row]) -> None:
        """Write a finished batch; it survives this process when the call returns."""
        assert self._file is not None, "open comes first"
        line = (json.dumps(rows) + "\n").encode()
        while line:
            line = line[os.write(self._file, line) :]

    def finish(self, rows: Sequence[Row], summary: dict[str, Any]) -> None:
        """Write the finished file and its summary, and remove the journal's folder."""
        write_whole(
            self.summary, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        )
        write_whole(self.out, (as_csv if self.out.suffix == ".csv" else as_jsonl)(rows))
        if self._file is not None:
            os.close(self._file)  # as the lock, before its folder goes: NFS keeps a file that is open
            self._file = None
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def as_jsonl(rows: Collection[Row]) -> bytes:
    """Encode rows as a JSON object a line. Bytes of a file name that is no UTF-8 stay as escapes, which JSON reads."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")


def as_csv(rows: Sequence[Row]) -> bytes:
    """Encode rows as CSV: a header and a line a row, quoted as spreadsheets read it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a finished file; those of a CSV hold text alone."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.split("\n") if line]  # not splitlines: a caption may hold U+2028


def _refuse_others(what: Path, record: Path, settings: dict[str, Any]) -> None:
    """Raise UserError where `record` says that `what` was made with other settings."""
    try:
        kept = _UNWRITTEN | dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise UserError(f"{what} exists, and not by this command; remove it, or choose another --out") from None
    for name, value in settings.items():
        if (before := kept.get(name)) != value:
            raise UserError(f"{what} was made with {name} {before}, now {value}; remove it, or choose another --out")
