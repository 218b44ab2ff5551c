"""A dataset as its reader hands it over: records by split, and what had to be left out."""

import hashlib
from dataclasses import dataclass

from imgcap.types import Record

_ID_BITS = 53  # any JSON reader keeps 53 bits exactly, those that read numbers as doubles too


@dataclass(frozen=True)
class Skipped:
    """Something left out of a shard set, by name, and why. Equal reasons are counted together."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A dataset, read: its records by split (`train`, `val`, `test`), in the order of the shards."""

    name: str
    splits: dict[str, list[Record]]
    skipped: list[Skipped]
    origin: str = ""  # the reader and the files it read, by name only
    split_rule: str = "standard"  # where the splits come from
    notes: tuple[str, ...] = ()  # lines for people: what was recognised, what was not used


def image_id_of(file_name: str) -> int:
    """The id of an image whose dataset has none: a hash of its file name, the same for any selection of images."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _ID_BITS)
