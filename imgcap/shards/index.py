"""The index of a split: where each sample lies, as shard, and offset, size and CRC-32 of its members."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes, write_hashed
from imgcap.shards.place import Place

_MEND = "run imgcap build with the same --out again, it mends the set (imgcap index: into another folder)"
FIELDS = ("shard", "key", "jpg_offset", "jpg_size", "jpg_crc32", "json_offset", "json_size", "json_crc32")
FEATURE_FIELDS = ("fp16_offset", "fp16_size", "fp16_crc32")  # of sets that hold an encoder's features too


class IndexRow(NamedTuple):
    """Where a sample lies. Offsets and sizes are bytes of the members' data in the tar; `key` is the number in KEY."""

    shard: int
    key: int
    jpg_offset: int
    jpg_size: int
    jpg_crc32: int
    json_offset: int
    json_size: int
    json_crc32: int
    fp16_offset: int = 0
    fp16_size: int = 0
    fp16_crc32: int = 0


class Index:
    """The rows of a split in the order of its shards, as columns of shape (samples,), int64."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        fields = FIELDS + FEATURE_FIELDS if FEATURE_FIELDS[0] in columns else FIELDS
        self._numbers = np.stack([columns[name] for name in fields], axis=1)  # a row's numbers side by side
        self.columns = {name: self._numbers[:, place] for place, name in enumerate(fields)}

    @classmethod
    def from_rows(cls, rows: list[IndexRow]) -> "Index":
        """Make an index of rows; it has the features' columns where any of them has features."""
        fields = FIELDS + FEATURE_FIELDS if any(row.fp16_size for row in rows) else FIELDS
        return cls({name: np.array([getattr(row, name) for row in rows], dtype=np.int64) for name in fields})

    @classmethod
    def load(cls, place: Place, split: str, sha256: str) -> "Index":
        """Read the index of a split; `UserError` where it can't be read or has another hash."""
        path = place / index_name(split)
        try:
            data = place.read(index_name(split))
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); {_MEND}") from None
        if sha256_of_bytes(data) != sha256:
            raise UserError(
                f"{path} is not the index of these shards (its sha256 differs from the manifest's); {_MEND}"
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls({name: arrays[name] for name in arrays.files})

    def save(self, folder: Path, split: str) -> str:
        """Write the index beside its shards, equal rows as equal bytes; return the sha256, for the manifest."""
        out = io.BytesIO()
        columns = {name: np.ascontiguousarray(column) for name, column in self.columns.items()}
        np.savez(out, allow_pickle=False, **columns)
        return write_hashed(folder / index_name(split), out.getvalue())

    def samples_of_shards(self, shards: int) -> list[int]:
        """Count the samples of each shard."""
        counts: list[int] = np.bincount(self.columns["shard"], minlength=shards).tolist()
        return counts

    def __len__(self) -> int:
        return len(self.columns["shard"])

    def __getitem__(self, position: int) -> IndexRow:
        return IndexRow(*self._numbers[position].tolist())


def index_name(split: str) -> str:
    return f"{split}.index.npz"


def key_name(ordinal: int) -> str:
    """The KEY of a record by its place in its split: no dots, and equal widths sort as numbers do."""
    return f"{ordinal:08d}"
