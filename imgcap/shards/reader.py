"""Reading samples of a shard set by their place in a split, with `os.pread` through the index."""

import json
import os
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes
from imgcap.files.fetch import is_address
from imgcap.shards.index import Index, IndexRow, key_name
from imgcap.shards.manifest import (
    MANIFEST_NAME,
    CaptionsInfo,
    Manifest,
    ShardInfo,
    SplitInfo,
    manifest_bytes,
    parse_manifest,
)
from imgcap.shards.place import Place
from imgcap.types import Sample

_OPEN_FILES = 128  # of each process and reader; far below the usual limit of 1024


class ShardReader:
    """A split of a shard set, a sequence of samples, for one thread at a time.

    It may be handed to forked and to spawned processes: each opens its own files. Opening checks the index by its
    hash, and of a set on this machine that every shard is there with its size; `imgcap verify` checks all bytes. Shards
    of a remote set are fetched and checked when they are first read.
    """

    def __init__(self, place: Place | Path | str, split: str) -> None:
        self.place = Place.of(place)
        self.split = split
        data = manifest_bytes(self.place)
        self.manifest = parse_manifest(data, self.place)
        self.manifest_sha256 = sha256_of_bytes(data)
        info = _split_info(self.place, self.manifest.splits, split)
        if not self.place.is_remote:
            _refuse_missing_shards(self.place, self.manifest, info)
        self.shards: tuple[ShardInfo, ...] = info.shards
        self._index = Index.load(self.place, split, info.index_sha256)
        if self._index.samples_of_shards(len(info.shards)) != self.shard_counts:
            raise UserError(
                f"{self.place / MANIFEST_NAME} and the index of split {split} count other samples; mend the set with "
                "imgcap build SOURCE --force"
            )
        self._descriptors: OrderedDict[str, int] = OrderedDict()  # file -> descriptor, the least used first
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def is_remote(self) -> bool:
        """Whether any shard of the split is fetched from elsewhere."""
        return any(is_address(self.place / shard.file) for shard in self.shards)

    @property
    def shard_counts(self) -> list[int]:
        """How many samples each shard holds."""
        return [shard.samples for shard in self.shards]

    def read(self, i: int) -> Sample:
        """Read sample `i` of the split, in the order of the shards; IndexError beyond the last.

        UserError where its bytes are not those that were built, `Unreachable` where they can't be had.
        """
        row = self._row(i)
        shard = self.shards[row.shard]
        if shard.captions is None:  # side by side in one tar
            data = os.pread(self._descriptor(shard), row.json_offset + row.json_size - row.jpg_offset, row.jpg_offset)
            jpeg, described = data[: row.jpg_size], data[row.json_offset - row.jpg_offset :]
        else:
            jpeg = os.pread(self._descriptor(shard), row.jpg_size, row.jpg_offset)
            described = os.pread(self._descriptor(shard.captions), row.json_size, row.json_offset)
        if zlib.crc32(jpeg) != row.jpg_crc32:
            raise self._damaged(shard, row.key)
        return self._sample(row, described, jpeg)

    def read_text(self, i: int) -> Sample:
        """Read sample `i` without its picture, of which no byte is read; raises what `read` does."""
        row = self._row(i)
        descriptor = self._descriptor(self.shards[row.shard].captions or self.shards[row.shard])
        return self._sample(row, os.pread(descriptor, row.json_size, row.json_offset), b"")

    def name(self, i: int) -> str:
        """Name sample `i` for people: by its file, and by its place alone where that can't be read."""
        told = f"sample {i} of {self.place}"
        with suppress(UserError, OSError):
            return f"{self.read_text(i).file_name} ({told})"
        return told

    def read_features(self, i: int) -> tuple[Sample, np.ndarray]:
        """Read sample `i` without its picture, and its features: (P, E), float16, of a set that holds some."""
        features = self.manifest.features
        assert features is not None, "the set holds no features"
        row = self._row(i)
        shard = self.shards[row.shard]
        data = os.pread(self._descriptor(shard), row.fp16_size, row.fp16_offset)
        if zlib.crc32(data) != row.fp16_crc32:
            raise self._damaged(shard, row.key)
        return self.read_text(i), np.frombuffer(data, np.float16).reshape(features.shape)

    def fetch(self, shard: int) -> None:
        """Bring a shard of a remote set to this machine, if it isn't here; `Unreachable` where it can't be had."""
        info = self.shards[shard]
        for file in (info, info.captions):
            if file is not None:
                self.place.path(file.file, file.bytes, file.sha256)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _row(self, i: int) -> IndexRow:
        if not 0 <= i < len(self._index):
            raise IndexError(f"sample {i} of {len(self._index)} in split {self.split} of {self.place}")
        return self._index[i]

    def _sample(self, row: IndexRow, described: bytes, jpeg: bytes) -> Sample:
        if zlib.crc32(described) != row.json_crc32:
            raise self._damaged(self.shards[row.shard], row.key)
        try:
            content = json.loads(described)
            return Sample(content["image_id"], content["file_name"], content["captions"], content["tokens"], jpeg)
        except (ValueError, KeyError, TypeError):
            raise self._damaged(self.shards[row.shard], row.key) from None

    def _descriptor(self, file: ShardInfo | CaptionsInfo) -> int:
        if self._process != os.getpid():  # forked: what is open here belongs to the parent's life, not to ours
            self._process = os.getpid()
            self.close()
        if file.file in self._descriptors:
            self._descriptors.move_to_end(file.file)
            return self._descriptors[file.file]
        if len(self._descriptors) >= _OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        self._descriptors[file.file] = self._open(file)
        return self._descriptors[file.file]

    def _open(self, file: ShardInfo | CaptionsInfo) -> int:
        while True:
            path = self.place.path(file.file, file.bytes, file.sha256)
            try:
                return os.open(path, os.O_RDONLY)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and str(path) != self.place / file.file:
                    continue  # another process has just removed it from the cache to make room
                reason = f"{error.strerror}; check it with imgcap verify {self.place}"
                raise UserError(f"cannot open {path}: {reason}") from None

    def _damaged(self, shard: ShardInfo, key: int) -> UserError:
        return UserError(
            f"sample {key_name(key)} of {self.place / shard.file} is damaged; see how much with imgcap verify "
            f"{self.place}, {self.manifest.how_to_mend(self.place)}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": OrderedDict(), "_process": -1}

    def __del__(self) -> None:
        if getattr(self, "_process", -1) == os.getpid():
            self.close()


def _split_info(place: Place, splits: dict[str, SplitInfo], split: str) -> SplitInfo:
    if split not in splits:
        there = f"{', '.join(splits)}; name one of them" if splits else "no splits at all"
        raise UserError(f"{place} has no split {split!r}; it has {there}")
    if not splits[split].shards:
        raise UserError(f"split {split} of {place} has no shards; build it again with imgcap build --force")
    return splits[split]


def _refuse_missing_shards(place: Place, manifest: Manifest, info: SplitInfo) -> None:
    """Raise `UserError` for a file that should lie on this machine, and is missing or of another size."""
    files = [file for shard in info.shards for file in (shard, shard.captions) if file is not None]
    for file in (file for file in files if not is_address(place / file.file)):
        path = Path(place / file.file)
        try:
            size = path.stat().st_size
        except OSError as error:
            is_built = not manifest.is_foreign and manifest.features is None
            mend = f"run imgcap build SOURCE --out {place} again" if is_built else manifest.how_to_mend(place)
            raise UserError(f"{path} cannot be read ({error.strerror}); {mend}") from None
        if size != file.bytes:
            raise UserError(
                f"{path} has {size} bytes, the manifest says {file.bytes}; see what is damaged with "
                f"imgcap verify {place}, {manifest.how_to_mend(place)}"
            )
