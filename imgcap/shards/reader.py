"""Samples of a shard set by their place in a split, read with `os.pread` through the index."""

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.durable import sha256_of_bytes
from imgcap.shards.index import Index, key_name
from imgcap.shards.manifest import Manifest, SplitInfo, manifest_bytes, parse_manifest
from imgcap.types import Sample

_OPEN_FILES = 128  # of each process and reader; far below the usual limit of 1024


class ShardReader:
    """A split of a shard set, a sequence of samples, for one thread at a time.

    It may be handed to forked and to spawned processes: each opens its own files.

    Opening checks that every shard is there with its size, and the index by its hash; `tools/verify_shards.py`
    checks all bytes.
    """

    def __init__(self, folder: Path | str, split: str) -> None:
        self.folder = Path(folder)
        self.split = split
        data = manifest_bytes(self.folder)
        self.manifest: Manifest = parse_manifest(data, self.folder)
        self.manifest_sha256: str = sha256_of_bytes(data)
        info = _split_info(self.folder, self.manifest, split)
        _refuse_missing_shards(self.folder, info)
        self.shard_counts: list[int] = [shard.samples for shard in info.shards]
        self._index = Index.load(self.folder / f"{split}.index.npz", info.index_sha256)
        self._paths = [self.folder / shard.file for shard in info.shards]
        self._descriptors: OrderedDict[int, int] = OrderedDict()  # shard -> open file, the least used first
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._index)

    def read(self, i: int) -> Sample:
        """Sample `i` of the split, in the order of the shards; IndexError beyond the last."""
        if not 0 <= i < len(self._index):
            raise IndexError(f"sample {i} of {len(self._index)} in split {self.split} of {self.folder}")
        row = self._index[i]
        jpeg = self._bytes(row.shard, row.key, row.jpg_offset, row.jpg_size)
        described = self._bytes(row.shard, row.key, row.json_offset, row.json_size)
        try:
            content = json.loads(described)
            return Sample(content["image_id"], content["file_name"], content["captions"], content["tokens"], jpeg)
        except (ValueError, KeyError, TypeError):
            raise self._damaged(row.shard, row.key) from None

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _bytes(self, shard: int, key: int, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor(shard), size, offset)
        if len(data) != size:
            raise self._damaged(shard, key)
        return data

    def _descriptor(self, shard: int) -> int:
        if self._process != os.getpid():  # forked: what is open here belongs to the parent's life, not to ours
            self._process = os.getpid()
            self.close()
        if shard in self._descriptors:
            self._descriptors.move_to_end(shard)
            return self._descriptors[shard]
        if len(self._descriptors) >= _OPEN_FILES:
            os.close(self._descriptors.popitem(last=False)[1])
        try:
            self._descriptors[shard] = os.open(self._paths[shard], os.O_RDONLY)
        except OSError as error:
            path = self._paths[shard]
            raise UserError(
                f"cannot open {path}: {error.strerror}; check it with tools/verify_shards.py {self.folder}"
            ) from None
        return self._descriptors[shard]

    def _damaged(self, shard: int, key: int) -> UserError:
        return UserError(
            f"sample {key_name(key)} of {self._paths[shard]} is damaged; see how much with tools/verify_shards.py "
            f"{self.folder}, mend it with tools/build_shards.py SOURCE --out {self.folder} --force"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": OrderedDict(), "_process": -1}

    def __del__(self) -> None:
        if getattr(self, "_process", -1) == os.getpid():
            self.close()


def _split_info(folder: Path, manifest: Manifest, split: str) -> SplitInfo:
    if split not in manifest.splits:
        there = ", ".join(manifest.splits) or "no splits at all"
        raise UserError(f"{folder} has no split {split!r}; it has {there}")
    info = manifest.splits[split]
    if not info.shards:
        raise UserError(f"split {split} of {folder} has no shards; build it again with tools/build_shards.py --force")
    return info


def _refuse_missing_shards(folder: Path, info: SplitInfo) -> None:
    for shard in info.shards:
        path = folder / shard.file
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); run tools/build_shards.py SOURCE --out {folder} again"
            ) from None
        if size != shard.bytes:
            raise UserError(
                f"{path} has {size} bytes, the manifest says {shard.bytes}; see what is damaged with "
                f"tools/verify_shards.py {folder}, mend it by running tools/build_shards.py SOURCE --out {folder} again"
            )
