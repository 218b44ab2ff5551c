"""Shards as tars under a temporary name, brought to the disk and renamed, and the files that make a set of them."""

import dataclasses
import json
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.files.durable import rename, sha256_of, temporary_name, write_whole
from imgcap.shards.index import Index, IndexRow, key_name
from imgcap.shards.manifest import BuildSettings, Manifest, ShardInfo, SplitInfo, by_reason
from imgcap.shards.sample import EncodedSample
from imgcap.shards.source import Skipped
from imgcap.shards.token_counts import TokenCounts

_BLOCK = 512  # a tar's header, and the unit that its members are filled up to
_END = 2 * _BLOCK  # zero blocks that close a tar
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)  # fields of a header
_MEMBER = tarfile.TarInfo()
_MEMBER.mode, _MEMBER.uname, _MEMBER.gname = 0o444, "bigdata", "bigdata"  # as webdataset's TarWriter has it
_TEMPLATE = _MEMBER.tobuf(tarfile.USTAR_FORMAT)  # the header of a member without name and size


@dataclass(frozen=True)
class WrittenShard:
    """A shard on the disk: its entry of the manifest, its rows of the index and its captions."""

    info: ShardInfo
    rows: list[IndexRow]
    captions: int
    token_counts: TokenCounts


def save_set(
    folder: Path, settings: BuildSettings, splits: Mapping[str, Sequence[WrittenShard]], skipped: Iterable[Skipped]
) -> Manifest:
    """Write the indexes, the token counts and, last, the manifest of shards that are written."""
    infos, token_counts_sha256 = {}, None
    for split, shards in splits.items():
        infos[split] = save_split(folder, split, shards)
        if split == "train":
            counts = TokenCounts()
            for shard in shards:
                counts.update(shard.token_counts)
            token_counts_sha256 = counts.save(folder, settings)
    manifest = Manifest(settings, infos, by_reason(skipped), token_counts_sha256)
    manifest.save(folder)
    return manifest


def save_split(folder: Path, split: str, shards: Sequence[WrittenShard]) -> SplitInfo:
    """Write the index of a split whose shards are written; return its entry of the manifest."""
    rows = [row for shard in shards for row in shard.rows]
    captions, files = sum(shard.captions for shard in shards), tuple(shard.info for shard in shards)
    return SplitInfo(len(rows), captions, Index.from_rows(rows).save(folder, split), files)


@dataclass(frozen=True)
class FinishedShard(WrittenShard):
    """A shard that a build has finished, as its record tells a later call of the same build."""

    first: int  # the records of its split that went into it: first <= ordinal < end
    end: int
    skipped: list[Skipped]

    def save(self, path: Path) -> None:
        content = {name: getattr(self, name) for name in ("first", "end", "captions")}
        content["token_counts"] = self.token_counts.as_json()
        content["info"] = dataclasses.asdict(self.info)
        content["rows"] = [list(row) for row in self.rows]
        content["skipped"] = [dataclasses.astuple(item) for item in self.skipped]
        write_whole(path, json.dumps(content))

    @classmethod
    def load(cls, path: Path, shards: Path) -> "FinishedShard | None":
        """Read the record of a shard; none where it, or the shard in the folder `shards`, is missing or damaged."""
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            content["info"] = ShardInfo(**content["info"])
            content["rows"] = [IndexRow(*row) for row in content["rows"]]
            content["token_counts"] = TokenCounts.from_json(content["token_counts"])
            content["skipped"] = [Skipped(*item) for item in content["skipped"]]
            shard = cls(**content)
            return shard if sha256_of(shards / shard.info.file) == shard.info.sha256 else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


class ShardWriter:
    """Writes samples into the tar `folder/file_name`, which gets that name by `finish`; `discard` removes it."""

    def __init__(self, folder: Path, file_name: str, number: int, first: int) -> None:
        self._path = folder / file_name
        self._temporary = temporary_name(self._path)
        self._number, self._first = number, first
        self._rows: list[IndexRow] = []
        self._token_counts, self._captions = TokenCounts(), 0
        self.skipped: list[Skipped] = []
        self._file = open(self._temporary, "wb")  # noqa: SIM115  (closed by finish or discard)
        self._offset = 0  # where the next member begins

    @property
    def samples(self) -> int:
        return len(self._rows)

    def size_with(self, sample: EncodedSample) -> int:
        """How many bytes the shard has if this sample comes into it as the last."""
        members = (sample.fp16, sample.jpeg, sample.json) if sample.fp16 else (sample.jpeg, sample.json)
        return self._offset + sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for data in members) + _END

    def write(self, ordinal: int, sample: EncodedSample) -> None:
        """Write a sample's members, by name, and its row of the index; `ordinal` is its place in the split."""
        key = key_name(ordinal)
        fp16 = self._add(f"{key}.fp16", sample.fp16) if sample.fp16 else (0, 0, 0)
        jpg, described = self._add(f"{key}.jpg", sample.jpeg), self._add(f"{key}.json", sample.json)
        self._rows.append(IndexRow(self._number, ordinal, *jpg, *described, *fp16))
        self._captions += len(sample.tokens)
        self._token_counts.add(sample.tokens)

    def _add(self, name: str, data: bytes) -> tuple[int, int, int]:
        """Write a member of the tar; return its data's offset, size and CRC-32."""
        place = self._offset + _BLOCK
        self._file.write(_header(name, len(data)))
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))
        self._offset = place + len(data) + -len(data) % _BLOCK
        return place, len(data), zlib.crc32(data)

    def finish(self, end: int) -> FinishedShard:
        """Close the tar and give it its name; `end` is the record behind its last."""
        self._file.write(bytes(_END + -(self._offset + _END) % tarfile.RECORDSIZE))
        self._file.close()
        info = ShardInfo(self._path.name, self.samples, self._temporary.stat().st_size, sha256_of(self._temporary))
        rename(self._temporary, self._path)
        return FinishedShard(info, self._rows, self._captions, self._token_counts, self._first, end, self.skipped)

    def discard(self) -> None:
        """Remove the unfinished tar, also where the disk is full and closing it fails again."""
        self._temporary.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()


def _header(name: str, size: int) -> bytes:
    """A tar member's header; `TarInfo.tobuf`, which gives the same, takes as long as the rest of writing a sample."""
    header = bytearray(_TEMPLATE)
    header[_NAME] = name.encode().ljust(100, b"\0")
    header[_SIZE] = b"%011o\0" % size
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)
