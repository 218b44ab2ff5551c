"""A dataset as its reader hands it over: records by split, and what had to be left out."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from imgcap.types import Record

_ID_BITS = 53  # any JSON reader keeps 53 bits exactly, those that read numbers as doubles too
MOST_LETTERS = 20_000  # of a caption
MOST_UNBROKEN = 2_000  # of those without white space between: spaCy takes the square of their number, here a second
EMPTY = "empty caption"
TOO_LONG = f"caption of more than {MOST_LETTERS:,} letters"
_MAX_ID = (1 << 63) - 1  # batches hold 64 bits, of which the lowest two numbers are no image's


@dataclass(frozen=True)
class Skipped:
    """Something left out of a shard set, by name, and why. Equal reasons are counted together."""

    file_name: str
    reason: str
    place: str = field(default="", compare=False)  # where it stands, such as `captions.csv line 3`

    @property
    def told(self) -> str:
        return f"{self.file_name} ({self.place})" if self.place else self.file_name


@dataclass(frozen=True)
class Source:
    """A dataset, read: its records by split (`train`, `val`, `test`), in the order of the shards."""

    name: str
    splits: dict[str, list[Record]]
    skipped: list[Skipped]
    origin: str = ""  # the reader and the files it read, by name only
    split_rule: str = "standard"  # where the splits come from
    notes: tuple[str, ...] = ()  # lines for people: what was recognised, what was not used


def is_of_caption(reason: str) -> bool:
    """Whether a reason is that of one caption, whose image may stay with its others."""
    return reason == EMPTY or reason.startswith("caption ")


def fault_of(caption: str) -> str | None:
    """Why a caption is none that can be tokenised in good time; None for one that can."""
    if len(caption) <= MOST_UNBROKEN:
        return None
    if len(caption) > MOST_LETTERS:
        return TOO_LONG
    unbroken = max(map(len, caption.split()), default=0) > MOST_UNBROKEN
    return f"caption with a word of more than {MOST_UNBROKEN:,} letters" if unbroken else None


def as_image_id(value: Any) -> int | None:
    """The id of an image as a file gives it: a whole number, also as text or as 7.0; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= 1 << _ID_BITS:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_ID else None


def image_id_of(file_name: str) -> int:
    """The id of an image whose dataset has none: a hash of its file name, the same for any selection of images."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _ID_BITS)
