"""Building a shard set from a dataset: in parallel, always the same bytes, and going on where a build was stopped.

Samples are made by several processes and written by one, in the order of the records. A shard ends before the
sample that would make it too large, which depends on nothing but the samples. Each finished shard leaves a record
in `.building/`; a later run takes it over and goes on behind it. The manifest comes last.
"""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgcap.errors import UserError
from imgcap.ranks.progress import Progress
from imgcap.shards.manifest import BuildSettings, Manifest, told_reasons
from imgcap.shards.parallel import Workers
from imgcap.shards.sample import EncodedSample, SampleEncoder, Tokeniser
from imgcap.shards.site import BuildSite
from imgcap.shards.source import Skipped, Source
from imgcap.shards.writer import FinishedShard, ShardWriter, save_set
from imgcap.types import Record

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAY_NOT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def build(
    source: Source,
    out: Path,
    tokeniser: Tokeniser,
    language: str = "en",
    resize: int | None = None,
    quality: int = 90,
    shard_mb: float = 64,
    workers: int = 1,
    force: bool = False,
) -> Manifest:
    """Write a shard set into the folder `out`, or finish the one that is begun there.

    resize: pixels of the shorter side, never upscaled; none keeps sizes. shard_mb: millions of bytes, at most
    (a shard of one sample may be larger). Raises `UserError` for an image id that comes twice, where nothing is left
    to write, where `out` can't be written, and where it holds a set of other settings, unless `force`.
    """
    _refuse_duplicates(source)
    settings = BuildSettings(
        name=source.name,
        source=source.origin or source.name,
        split_rule=source.split_rule,
        tokeniser=tokeniser.name,
        language=language,
        resize=resize,
        quality=quality,
        shard_mb=shard_mb,
        records_sha256=_fingerprint(source),
        records={split: len(records) for split, records in source.splits.items()},
    )
    with _clear_write_errors(out):
        site = BuildSite.enter(out, settings, force)
        if site.finished is not None:
            return site.finished
        with site:
            tokeniser("")  # loads its rules, once for all processes that are forked
            encoder, total = SampleEncoder(tokeniser, resize, quality), sum(settings.records.values())
            with Workers(encoder, workers) as encoders, Progress(total, f"building {out}") as progress:
                builder = _SplitBuilder(site, encoders, progress, int(shard_mb * 1e6), list(source.skipped))
                splits = {split: builder.build(split, records) for split, records in source.splits.items()}
            return _finish(site, splits, builder.skipped)


class _Ahead:
    """An iterator of samples whose next one can be looked at."""

    def __init__(self, samples: Iterator[EncodedSample]) -> None:
        self._samples = samples
        self.next = next(samples, None)

    def advance(self) -> None:
        self.next = next(self._samples, None)


@dataclass(frozen=True)
class _SplitBuilder:
    """Builds the shards of one split after the other, and collects what they had to skip."""

    site: BuildSite
    encoders: Workers[Record, EncodedSample]
    progress: Progress
    shard_bytes: int
    skipped: list[Skipped]

    def build(self, split: str, records: list[Record]) -> list[FinishedShard]:
        shards: list[FinishedShard] = []
        position, samples = 0, None
        while position < len(records):
            number = len(shards)
            shard = self.site.finished_shard(split, number, position)
            if shard:
                samples = None
                self.progress.advance(shard.end - position)
            else:
                samples = samples or _Ahead(self.encoders.map(records[position:]))
                writer = ShardWriter(self.site.folder, self.site.shard_name(split, number), number, position)
                shard = self._fill(writer, samples, position)
                if shard is None:  # nothing but unreadable images up to the end
                    self.skipped.extend(writer.skipped)
                    break
                self.site.keep(shard)
            shards.append(shard)
            self.skipped.extend(shard.skipped)
            position = shard.end
        return shards

    def _fill(self, writer: ShardWriter, samples: _Ahead, position: int) -> FinishedShard | None:
        try:
            while (sample := samples.next) is not None:
                if sample.jpeg and writer.samples and writer.size_with(sample) > self.shard_bytes:
                    break
                writer.skipped.extend(sample.skipped)
                if sample.jpeg:
                    writer.write(position, sample)
                position += 1
                self.progress.advance()
                samples.advance()
            if writer.samples:
                return writer.finish(position)
            writer.discard()
            return None
        except BaseException:
            writer.discard()
            raise


def _finish(site: BuildSite, splits: dict[str, list[FinishedShard]], skipped: list[Skipped]) -> Manifest:
    if not any(splits.values()):
        told = told_reasons(skipped) or "the source is empty"
        raise UserError(f"no image is left to put into {site.folder}: {told}; check --images and --captions")
    return save_set(site.folder, site.settings, {split: shards for split, shards in splits.items() if shards}, skipped)


def _refuse_duplicates(source: Source) -> None:
    seen: dict[int, str] = {}
    for split, records in source.splits.items():
        for record in records:
            here = f"{record.file_name} ({split})"
            if record.image_id in seen:
                raise UserError(
                    f"image id {record.image_id} belongs to both {seen[record.image_id]} and {here}; "
                    "give each image one id and one split"
                )
            seen[record.image_id] = here


def _fingerprint(source: Source) -> str:
    """A hash of everything a source says, without the folders where it found it."""
    digest = hashlib.sha256()
    for split, records in source.splits.items():
        for record in records:
            line = [split, record.image_id, record.file_name, record.captions]
            digest.update(json.dumps(line).encode())
    for item in source.skipped:
        digest.update(json.dumps([item.file_name, item.reason]).encode())
    return digest.hexdigest()


@contextmanager
def _clear_write_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise UserError(
                f"no room left to write {out} ({error.strerror}); free some, or build elsewhere; "
                "the same command again goes on behind the shards that are finished"
            ) from None
        if error.errno in _MAY_NOT:
            raise UserError(f"cannot write {error.filename or out}: {error.strerror}; choose another --out") from None
        raise
