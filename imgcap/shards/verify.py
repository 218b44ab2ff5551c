"""Checking every byte of a shard set; damage is named by file and sample."""

import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of
from imgcap.files.fetch import Unreachable
from imgcap.pictures.opening import UnreadableImage, decode
from imgcap.ranks.progress import Progress
from imgcap.shards.index import Index, IndexRow, index_name, key_name
from imgcap.shards.manifest import MANIFEST_NAME, TOKEN_COUNTS_NAME, Manifest, ShardInfo, SplitInfo
from imgcap.shards.place import Place


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a shard set: the file, the sample where it is known, and what was found."""

    file: str
    key: str | None
    what: str


def verify(folder: Path, decode: bool = False) -> list[Damage]:
    """Check every byte of a shard set against its manifest and index; with `decode` every JPEG too.

    An empty list: the set is as it was built. A folder that is no shard set at all is a UserError.
    """
    try:
        manifest = Manifest.load(folder)
    except UserError as error:
        if "is damaged" not in str(error):
            raise
        return [Damage(MANIFEST_NAME, None, "is no manifest")]
    counts, sha256 = folder / TOKEN_COUNTS_NAME, manifest.token_counts_sha256
    damages = _check_hash(counts, sha256, "has other bytes than were built (sha256)") if sha256 else []
    seen: dict[int, str] = {}
    with Progress(sum(info.images for info in manifest.splits.values()), f"verifying {folder}") as progress:
        for split, info in manifest.splits.items():
            check = (_wrong_with_image if manifest.features else _wrong_with_jpeg) if decode else None
            damages += _SplitCheck(folder, split, info, check, seen, progress).run()
    if manifest.is_foreign:  # tars that weren't indexed may lie beside those that were
        return damages
    listed = {shard.file for info in manifest.splits.values() for shard in info.shards}
    unlisted = [path.name for path in folder.glob("*.tar") if not {path.name, str(path.absolute())} & listed]
    return damages + [Damage(name, None, "is not in the manifest") for name in sorted(unlisted)]


def _check_hash(path: Path, sha256: str, otherwise: str) -> list[Damage]:
    if not path.is_file():
        return [Damage(path.name, None, "is missing")]
    return [] if sha256_of(path) == sha256 else [Damage(path.name, None, otherwise)]


@dataclass(frozen=True)
class _SplitCheck:
    """Checks a split; `seen` holds the image ids of the splits before it.

    `of_image`, if there is one, says what is wrong with a picture: a build makes all of them RGB JPEGs, and a set of
    features takes those that are.
    """

    folder: Path
    split: str
    info: SplitInfo
    of_image: Callable[[bytes], Iterator[str]] | None
    seen: dict[int, str]
    progress: Progress

    def run(self) -> list[Damage]:
        path, sha256 = self.folder / index_name(self.split), self.info.index_sha256
        damages = _check_hash(path, sha256, "is not the index of these shards (sha256)")
        index = None if damages else Index.load(Place(self.folder), self.split, sha256)
        start = 0
        for number, shard in enumerate(self.info.shards):
            rows = None
            if index is not None:
                rows = [index[i] for i in range(start, min(start + shard.samples, len(index)))]
            check = self._check_foreign if shard.captions else self._check_shard
            damages += check(number, shard, rows)
            start += shard.samples
            self.progress.advance(shard.samples)
        return damages

    def _check_shard(self, number: int, shard: ShardInfo, rows: list[IndexRow] | None) -> Iterator[Damage]:
        path = self.folder / shard.file
        if not path.is_file():
            yield Damage(shard.file, None, "is missing")
            return
        size = path.stat().st_size
        if size != shard.bytes:
            yield Damage(shard.file, None, f"has {size} bytes, the manifest says {shard.bytes}")
        damages = list(self._check_samples(number, shard, path, rows))
        yield from damages
        if size == shard.bytes and not damages and sha256_of(path) != shard.sha256:
            yield Damage(shard.file, None, "has other bytes than were built, outside of its samples (sha256)")

    def _check_foreign(self, number: int, shard: ShardInfo, rows: list[IndexRow] | None) -> Iterator[Damage]:
        """Check a tar that others wrote and the captions beside it: they are as they were when they were indexed."""
        assert shard.captions is not None, "a shard of our own has its captions in the tar"
        place, paths = Place(self.folder), []
        for file in (shard, shard.captions):
            try:
                paths.append(place.path(file.file, file.bytes, file.sha256))
                if sha256_of(paths[-1]) != file.sha256:
                    yield Damage(file.file, None, "has other bytes than were indexed (sha256)")
            except (FileNotFoundError, Unreachable) as error:
                yield Damage(file.file, None, str(error) if isinstance(error, Unreachable) else "is missing")
                return
        with paths[0].open("rb") as images, paths[1].open("rb") as documents:
            for row in rows or []:
                images.seek(row.jpg_offset)
                documents.seek(row.json_offset)
                image, document = images.read(row.jpg_size), documents.read(row.json_size)
                found = list(self._wrong_with_json(document))
                if zlib.crc32(image) != row.jpg_crc32 or zlib.crc32(document) != row.json_crc32:
                    found.append("has other bytes than were indexed (CRC-32)")
                elif self.of_image:
                    found += _wrong_with_image(image)
                yield from (Damage(shard.file, key_name(row.key), what) for what in found)

    def _check_samples(
        self, number: int, shard: ShardInfo, path: Path, rows: list[IndexRow] | None
    ) -> Iterator[Damage]:
        samples = 0
        try:
            with tarfile.open(path, "r:") as tar:
                for position, (key, members) in enumerate(_samples(tar)):
                    samples += 1
                    row = rows[position] if rows and position < len(rows) else None
                    for what in self._wrong_with(number, tar, key, members, row):
                        yield Damage(shard.file, key, what)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            yield Damage(shard.file, _key_at(rows, samples - 1), f"the tar cannot be read from here on ({error})")
            return
        if samples != shard.samples:
            yield Damage(shard.file, _key_at(rows, samples), f"ends after {samples} of {shard.samples} samples")

    def _wrong_with(
        self, number: int, tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo], row: IndexRow | None
    ) -> Iterator[str]:
        expected = {"jpg", "json", "fp16"} if row is not None and row.fp16_size else {"jpg", "json"}
        if set(members) != expected:
            yield f"has the members {', '.join(sorted(members))} in place of {' and '.join(sorted(expected))}"
            return
        data = {suffix: _read(tar, member) for suffix, member in members.items()}
        if row is not None:
            where = (row.shard, key_name(row.key), row.jpg_offset, row.jpg_size, row.json_offset, row.json_size)
            jpg, described = members["jpg"], members["json"]
            if where != (number, key, jpg.offset_data, jpg.size, described.offset_data, described.size):
                yield "lies elsewhere than the index says"
            crcs = {"jpg": row.jpg_crc32, "json": row.json_crc32, "fp16": row.fp16_crc32}
            for suffix, crc32 in ((suffix, crcs[suffix]) for suffix in sorted(members, reverse=True)):
                if zlib.crc32(data[suffix]) != crc32:
                    yield f"{suffix} has other bytes than were built (CRC-32)"
        yield from self._wrong_with_json(data["json"])
        if self.of_image:
            yield from self.of_image(data["jpg"])

    def _wrong_with_json(self, data: bytes) -> Iterator[str]:
        try:
            content: dict[str, Any] = json.loads(data)
            image_id, captions, tokens = content["image_id"], content["captions"], content["tokens"]
            ok = isinstance(image_id, int) and len(captions) == len(tokens) > 0
        except (ValueError, KeyError, TypeError):
            ok = False
        if not ok:
            yield "json is damaged"
            return
        here = f"{content.get('file_name')} ({self.split})"
        if image_id in self.seen:
            yield f"image id {image_id} belongs to both {self.seen[image_id]} and {here}"
        self.seen[image_id] = here


def _key_at(rows: list[IndexRow] | None, position: int) -> str | None:
    return key_name(rows[position].key) if rows and 0 <= position < len(rows) else None


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Yield each sample of a tar: its key, and its members by suffix."""
    for key, members in groupby(tar, lambda member: member.name.partition(".")[0]):
        yield key, {member.name.partition(".")[2]: member for member in members}


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise ValueError(f"{member.name} ends early")
    return data


def _wrong_with_image(data: bytes) -> Iterator[str]:
    try:
        decode(data)
    except UnreadableImage as error:
        yield str(error)


def _wrong_with_jpeg(data: bytes) -> Iterator[str]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.load()
            if image.mode != "RGB":
                yield f"jpg is {image.mode}, not RGB"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        yield "jpg cannot be decoded"
