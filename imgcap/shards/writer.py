"""One shard: a tar under a temporary name, brought to the disk and renamed, and the record that it is finished."""

import dataclasses
import json
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.files.durable import rename, sha256_of, temporary_name, write_whole
from imgcap.shards.index import IndexRow, key_name
from imgcap.shards.manifest import ShardInfo
from imgcap.shards.sample import EncodedSample
from imgcap.shards.source import Skipped
from imgcap.shards.token_counts import TokenCounts

_BLOCK = 512  # a tar's header, and the unit that its members are filled up to
_END = 2 * _BLOCK  # zero blocks that close a tar
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)  # fields of a header


@dataclass(frozen=True)
class FinishedShard:
    """A shard on the disk, and what the rest of the build needs to know of it."""

    info: ShardInfo
    first: int  # the records of its split that went into it: first <= ordinal < end
    end: int
    captions: int
    rows: list[IndexRow]
    token_counts: TokenCounts
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
        """The record of a shard that is on the disk as it was written; none where either is missing or damaged."""
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
    """Writes samples into `folder/file_name`. `finish` gives the file its name; `discard` removes what is there."""

    def __init__(self, folder: Path, file_name: str, number: int, first: int) -> None:
        self._path = folder / file_name
        self._temporary = temporary_name(self._path)
        self._number = number
        self._first = first
        self._rows: list[IndexRow] = []
        self._token_counts = TokenCounts()
        self._captions = 0
        self._skipped: list[Skipped] = []
        self._file = open(self._temporary, "wb")  # noqa: SIM115  (closed by finish or discard)
        self._offset = 0  # where the next member begins

    @property
    def samples(self) -> int:
        return len(self._rows)

    @property
    def skipped(self) -> list[Skipped]:
        return self._skipped

    def size_with(self, sample: EncodedSample) -> int:
        """Bytes of the shard if this sample came into it and nothing else."""
        members = (sample.fp16, sample.jpeg, sample.json) if sample.fp16 else (sample.jpeg, sample.json)
        return self._offset + sum(map(_size_in_tar, members)) + _END

    def write(self, ordinal: int, sample: EncodedSample) -> None:
        key, start = key_name(ordinal), self._offset
        if sample.fp16:  # the tar holds members by name
            self._add(f"{key}.fp16", sample.fp16)
        jpg_offset = self._add(f"{key}.jpg", sample.jpeg)
        json_offset = self._add(f"{key}.json", sample.json)
        self._rows.append(
            IndexRow(
                shard=self._number,
                key=ordinal,
                jpg_offset=jpg_offset,
                jpg_size=len(sample.jpeg),
                jpg_crc32=zlib.crc32(sample.jpeg),
                json_offset=json_offset,
                json_size=len(sample.json),
                json_crc32=zlib.crc32(sample.json),
                fp16_offset=start + _BLOCK if sample.fp16 else 0,
                fp16_size=len(sample.fp16),
                fp16_crc32=zlib.crc32(sample.fp16),
            )
        )
        self._captions += len(sample.tokens)
        self._token_counts.add(sample.tokens)

    def _add(self, name: str, data: bytes) -> int:
        """Write a member; return where its data begins."""
        place = self._offset + _BLOCK
        self._file.write(_header(name, len(data)))
        self._file.write(data)
        self._file.write(bytes(-len(data) % _BLOCK))
        self._offset = place + len(data) + -len(data) % _BLOCK
        return place

    def finish(self, end: int) -> FinishedShard:
        self._file.write(bytes(_END + -(self._offset + _END) % tarfile.RECORDSIZE))
        self._file.close()
        info = ShardInfo(self._path.name, self.samples, self._temporary.stat().st_size, sha256_of(self._temporary))
        rename(self._temporary, self._path)
        return FinishedShard(info, self._first, end, self._captions, self._rows, self._token_counts, self._skipped)

    def discard(self) -> None:
        """Remove the unfinished file, also when its disk is full and closing it fails again."""
        self._temporary.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()


def _template() -> bytes:
    """The header of a member without name and size, as webdataset's TarWriter writes it."""
    member = tarfile.TarInfo()
    member.mode, member.uname, member.gname = 0o444, "bigdata", "bigdata"
    return member.tobuf(tarfile.USTAR_FORMAT)


_TEMPLATE = _template()


def _header(name: str, size: int) -> bytes:
    """What `TarInfo.tobuf` gives, which takes as long as all else that is done to write a sample."""
    header = bytearray(_TEMPLATE)
    header[_NAME] = name.encode().ljust(100, b"\0")
    header[_SIZE] = b"%011o\0" % size
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def _size_in_tar(data: bytes) -> int:
    return _BLOCK + -(-len(data) // _BLOCK) * _BLOCK
