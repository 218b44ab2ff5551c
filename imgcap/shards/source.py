"""What a reader of a dataset hands over: records by split, and what it had to leave out."""

from dataclasses import dataclass

from imgcap.types import Record


@dataclass(frozen=True)
class Skipped:
    """Something left out of a shard set, by name, and why."""

    file_name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A dataset, read: its records by split (`train`, `val`, `test`), in the order of the shards."""

    name: str
    splits: dict[str, list[Record]]
    skipped: list[Skipped]
