"""Indexing tars that others have written, so that they are a shard set as they lie, without a byte rewritten.

tar_samples.py finds the samples. Their captions are tokenised once and written beside the index; images are read from
the tars by their place.
"""

import dataclasses
import glob
import json
import math
import os
import re
import shlex
import shutil
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path, PurePosixPath

import braceexpand

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of, sha256_of_bytes, write_whole
from imgcap.files.fetch import NotThere, fetch, is_address
from imgcap.files.locks import alone_in
from imgcap.ranks.progress import Progress
from imgcap.shards.index import IndexRow
from imgcap.shards.manifest import MANIFEST_NAME, BuildSettings, CaptionsInfo, Manifest, ShardInfo, told_reasons
from imgcap.shards.parallel import Workers
from imgcap.shards.sample import Tokeniser, encoded_captions
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.sources.splits import STANDARD_NAMES
from imgcap.shards.tar_members import compression_of
from imgcap.shards.tar_samples import TarSample, TarSamples
from imgcap.shards.token_counts import TokenCounts
from imgcap.shards.writer import WrittenShard, save_set
from imgcap.types import Record

_SPLITS = {"train": 0, "val": 1, "test": 2}  # in this order, others behind them
_HELD_OUT = 0.05  # of the images, for `val` and the same again for `test`
_FETCHED = ".indexing"  # in the set's folder, until it is whole: what has come of the tars behind addresses
_TOLD = 20  # missing tars, by name
_MOST_TARS = 1_000_000
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)[^{}]*\}")
_TAKE_REST = "check the names, or take what is there with --skip-missing"


def expand(patterns: Iterable[str], others: tuple[str, ...] = (), missing_too: bool = False) -> list[str]:
    """Find the tars of patterns: paths with wildcards, and paths or addresses with ranges such as `{00000..00331}`.

    Wildcards are those of a shell, in any part of a path, and `**` for folders at any depth. What begins like one of
    `others` is taken as it is. Raises `UserError` for a tar that comes twice, and for those that aren't there, unless
    they are asked for as well (`missing_too`).
    """
    found = _found(patterns, others)
    _refuse_twice(found, others)
    if not missing_too and (missing := missing_of(found, others)):
        raise UserError(
            f"{told_missing(missing, len(found))}; give the tars, a pattern of theirs, or a range {{00000..00331}}"
        )
    return found


def named_splits(patterns: list[str], split: str | None = None) -> tuple[list[str], str | Mapping[str, str] | None]:
    """Find the tars of patterns, those that aren't there too, and their splits where `train=` or the like names them.

    `UserError` where some patterns name their split and others don't, or all have another one (`split`).
    """
    named = [pattern.partition("=") for pattern in patterns]
    splits = [STANDARD_NAMES.get(name) if sign else None for name, sign, _ in named]
    if not any(splits):
        return expand(patterns, missing_too=True), split and _one_split(split)
    if split or not all(splits):
        other = f"--split {split}" if split else patterns[splits.index(None)]
        told = f"{other} and {patterns[0]} don't go together"
        raise UserError(f"{told}; write train=, val= or test= before each pattern, or before none")
    of = [(tar, split) for (*_, tars), split in zip(named, splits, strict=True) for tar in _found([tars], ()) if split]
    _refuse_twice([tar for tar, _ in of], ())
    return [tar for tar, _ in of], dict(of)


def _one_split(name: str) -> str:
    """The split that is meant for all tars; `UserError` for a name that can't be part of a file's."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"--split {name!r} is no name of a split; write train, val or test")
    return STANDARD_NAMES.get(name.lower(), name)


def _found(patterns: Iterable[str], others: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        if math.prod(abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(pattern)) > _MOST_TARS:
            raise UserError(f"{pattern} means more than {_MOST_TARS:,} tars; write the ranges of those that there are")
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise UserError(f"{pattern} is no pattern ({error}); write a range as {{00000..00331}}") from None
        for name in filter(None, names):
            found += [name] if is_address(name) or name.startswith(others) else _matches(name)
    if not found:
        raise UserError("no tars are named")
    return found


def _refuse_twice(tars: list[str], others: tuple[str, ...]) -> None:
    """Raise `UserError` for a tar that is there twice, be it by another name."""
    here = [tar if is_address(tar) or tar.startswith(others) else os.path.realpath(tar) for tar in tars]
    (same, times), *_ = Counter(here).most_common(1)
    if times > 1:
        raise UserError(f"{tars[here.index(same)]} is named twice; name each tar once")


def _matches(name: str) -> list[str]:
    """The paths of the tars that a name with wildcards means; the name itself where there are none."""
    path = str(Path(os.path.expanduser(name)).absolute())
    if os.path.isdir(path):
        raise UserError(f"{name} is a folder; name the tars in it: {os.path.join(name, '*.tar')}")
    matches = [path] if os.path.isfile(path) else sorted(glob.glob(path, recursive=True))
    return [match for match in matches if not os.path.isdir(match)] or [name]


def missing_of(tars: Iterable[str], others: tuple[str, ...] = ()) -> list[str]:
    """Those tars that should lie on this machine and don't."""
    return [tar for tar in tars if not (is_address(tar) or tar.startswith(others) or os.path.isfile(tar))]


def told_missing(missing: list[str], tars: int) -> str:
    """Tell which of so many tars are not there."""
    more = f" and {len(missing) - _TOLD:,} more" if len(missing) > _TOLD else ""
    share = f" ({len(missing):,} of {tars:,} tars)" if len(missing) > 1 else ""
    return f"there is no {', '.join(missing[:_TOLD])}{more}{share}"


def index_foreign(
    tars: list[str],
    out: Path,
    tokeniser: Tokeniser,
    language: str = "en",
    split: str | Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int = 1,
    skip_damaged: bool = False,
    skip_missing: bool = False,
) -> Manifest:
    """Write index, captions and manifest of some tars into the folder `out`.

    `split` is one for all, or one for each tar; with none, about 5 % of the images go to `val` and to `test`, by a hash
    of `seed` and key. A tar that is cut or can't be read to its end is a UserError, or with `skip_damaged` gives the
    samples before that place. So are those that are not there, unless `skip_missing`; what has been fetched until then
    is not fetched again by a later call.
    """
    if (out / MANIFEST_NAME).exists():
        raise UserError(f"{out} holds a shard set already; choose another --out, or remove it first")
    if not skip_missing and (missing := missing_of(tars)):
        raise UserError(f"{told_missing(missing, len(tars))}; {_TAKE_REST}")
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out, "index"):
        splits = split if isinstance(split, Mapping) else dict.fromkeys(tars, split) if split else {}
        task = _Indexing(out, tokeniser, splits, seed, skip_damaged, _short_names(tars))
        parts = _indexed(task, tars, workers)
        missing = [tar for tar, part in zip(tars, parts, strict=True) if part.missing]
        if missing and not skip_missing:
            raise UserError(f"{told_missing(missing, len(tars))}; {_TAKE_REST}")
        if joined := sum(part.joined for part in parts):
            print(f"{joined:,} samples were joined whose members lie apart in their tar", file=sys.stderr, flush=True)
        there = [tar for tar, part in zip(tars, parts, strict=True) if not part.missing]
        manifest = _finish(out, parts, _settings(there or tars, tokeniser, language, split, seed, parts))
        shutil.rmtree(out / _FETCHED, ignore_errors=True)
    return manifest


def _indexed(task: "_Indexing", tars: list[str], workers: int) -> list["_Part"]:
    parts: list[_Part] = []
    label = f"indexing into {task.out}"
    with Workers(task, workers, chunk=1) as indexing, Progress(len(tars), label, "tars") as progress:
        for part in indexing.map(list(enumerate(tars))):
            parts.append(part)
            progress.advance()
    return parts


def _short_names(tars: list[str]) -> dict[str, str]:
    """A name for each tar: the last parts of its path, as many as it takes for all names to differ."""
    parts = {tar: tar.split("/") for tar in tars}
    for depth in range(1, max(map(len, parts.values()))):
        names = {tar: "/".join(parts[tar][-depth:]) for tar in tars}
        if len(set(names.values())) == len(names):
            return names
    return {tar: tar for tar in tars}


@dataclass
class _Part:
    """A tar's share of each split, and what was skipped in it."""

    splits: dict[str, WrittenShard] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    joined: int = 0
    missing: bool = False

    def save(self, path: Path, made_by: str) -> None:
        """Write the part for a later call, with all that has made it what it is."""
        splits = {
            split: [dataclasses.asdict(shard.info), shard.rows, shard.captions, shard.token_counts.as_json()]
            for split, shard in self.splits.items()
        }
        skipped = [dataclasses.astuple(item) for item in self.skipped]
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps({"of": made_by, "splits": splits, "skipped": skipped, "joined": self.joined}))

    @classmethod
    def load(cls, path: Path, made_by: str) -> "_Part | None":
        """Read the part that an earlier call has made the same way, if there is one that is whole."""
        try:
            content = json.loads(path.read_bytes())
            if content["of"] != made_by:
                return None
            part = cls({}, [Skipped(*item) for item in content["skipped"]], content["joined"])
            for split, (info, rows, captions, counts) in content["splits"].items():
                beside = CaptionsInfo(**info["captions"])
                if sha256_of(path.parent.parent / beside.file) != beside.sha256:
                    return None
                indexed = [IndexRow(*row) for row in rows]
                shard = ShardInfo(**info | {"captions": beside})
                part.splits[split] = WrittenShard(shard, indexed, captions, TokenCounts.from_json(counts))
            return part
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass
class _Documents:
    """The captions of a split in one tar, one JSON document a line."""

    data: bytearray = field(default_factory=bytearray)
    rows: list[IndexRow] = field(default_factory=list)
    captions: int = 0
    counts: TokenCounts = field(default_factory=TokenCounts)


@dataclass(frozen=True)
class _Indexing:
    """Indexes a tar, called with its number and name, in any process."""

    out: Path
    tokeniser: Tokeniser
    splits: Mapping[str, str]  # of tars; of none: by a hash
    seed: int
    skip_damaged: bool
    names: dict[str, str]  # how a tar is called in the names of its samples

    def __call__(self, numbered: tuple[int, str]) -> _Part:
        number, name = numbered
        if not is_address(name):
            return self._index(number, name, Path(name)) if os.path.isfile(name) else _missing(name)
        kept, made_by = self.out / _FETCHED / f"{number:05d}.json", self._made_by(number, name)
        if part := _Part.load(kept, made_by):
            return part
        try:
            with _fetched(name, self.out / f".fetched-{number:05d}.tar") as path:
                part = self._index(number, name, path)
        except NotThere:
            return _missing(name)
        part.save(kept, made_by)
        return part

    def _made_by(self, number: int, name: str) -> str:
        """What decides a part, beside the bytes of its tar."""
        decides = [number, name, self.names[name], self.splits.get(name), self.seed, self.tokeniser.name]
        return json.dumps([*decides, self.skip_damaged])

    def _index(self, number: int, name: str, path: Path) -> _Part:
        documents: dict[str, _Documents] = defaultdict(_Documents)
        with path.open("rb") as file:
            if program := compression_of(file):
                raise UserError(_told_compressed(name, program))
            samples = TarSamples(file, self.names[name])
            account = samples.account
            if account.damage:
                if not self.skip_damaged:
                    raise UserError(
                        f"{name} is cut or no tar, behind {len(samples)} whole samples: {account.damage}; fetch it "
                        "again, or take what is whole with --skip-damaged"
                    )
                account.skipped.append(Skipped(name, "tar that is cut or can't be read to its end"))
            for sample in samples.read():
                self._take(
                    f"{self.names[name]}/{sample.key}", sample, self.splits.get(name), documents, account.skipped
                )
        size, sha256 = path.stat().st_size, sha256_of(path)
        splits = {}
        for split, held in sorted(documents.items()):
            captions = f"{split}-{number:05d}.captions"
            write_whole(self.out / captions, bytes(held.data))
            beside = CaptionsInfo(captions, len(held.data), sha256_of_bytes(bytes(held.data)))
            info = ShardInfo(name, len(held.rows), size, sha256, beside)
            splits[split] = WrittenShard(info, held.rows, held.captions, held.counts)
        return _Part(splits, account.skipped, account.joined)

    def _take(
        self, name: str, sample: TarSample, split: str | None, documents: dict[str, _Documents], skipped: list[Skipped]
    ) -> None:
        record = Record(image_id_of(name), name, Path(name), tuple(sample.captions))
        document, tokens = encoded_captions(record, self.tokeniser, skipped)
        if not tokens:
            return
        held = documents[split or _split_of(name, self.seed)]
        picture = sample.image.offset, sample.image.size, zlib.crc32(sample.data)
        written = len(held.data), len(document), zlib.crc32(document)
        held.rows.append(IndexRow(0, len(held.rows), *picture, *written))  # `_finish` numbers shards and keys
        held.data += document + b"\n"
        held.captions += len(tokens)
        held.counts.add(tokens)


@contextmanager
def _fetched(address: str, path: Path) -> Iterator[Path]:
    """Have a tar on this machine for a while."""
    try:
        path.unlink(missing_ok=True)  # of a call that was killed, and perhaps of another tar
        fetch(address, path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _missing(name: str) -> _Part:
    return _Part(skipped=[Skipped(name, "tar that is not there")], missing=True)


def _told_compressed(name: str, program: str) -> str:
    """Say how to unpack a tar, so that samples have a place in it."""
    plain = PurePosixPath(name).name.removesuffix(".tgz")
    for suffix in (".gz", ".bz2", ".xz", ".zst"):
        plain = plain.removesuffix(suffix)
    plain = f"{plain.removesuffix('.tar')}.tar"
    packed, fetched = name, ""
    if is_address(name):
        packed, fetched = PurePosixPath(name).name, "fetch it, "
    else:
        plain = str(Path(name).parent / plain)
    if plain == packed:
        plain = f"{plain}.unpacked"
    unpacked = f"{program} -dc {shlex.quote(packed)} > {shlex.quote(plain)}"
    return f"{name} is compressed, and an index needs plain tars; {fetched}unpack it with: {unpacked}"


def _split_of(name: str, seed: int) -> str:
    share = image_id_of(f"{seed}/{name}") / 2**53
    return "val" if share < _HELD_OUT else "test" if share < 2 * _HELD_OUT else "train"


def _settings(
    tars: list[str],
    tokeniser: Tokeniser,
    language: str,
    split: str | Mapping[str, str] | None,
    seed: int,
    parts: list[_Part],
) -> BuildSettings:
    rule = f"all {split}" if split else f"by image, a hash with seed {seed}: about {_HELD_OUT:.0%} val and test each"
    if isinstance(split, Mapping):
        rule = "by tar: " + ", ".join(f"{count} {name}" for name, count in Counter(split[tar] for tar in tars).items())
    images: dict[str, int] = defaultdict(int)
    for part in parts:
        for name, held in part.splits.items():
            images[name] += len(held.rows)
    return BuildSettings(
        name=PurePosixPath(tars[0]).parent.name or "foreign",
        source=f"{len(tars)} foreign tars, {PurePosixPath(tars[0]).name} to {PurePosixPath(tars[-1]).name}",
        split_rule=rule,
        tokeniser=tokeniser.name,
        language=language,
        resize=None,
        quality=0,
        shard_mb=0,
        records_sha256=sha256_of_bytes("\n".join(tars).encode()),
        records=dict(images),
    )


def _finish(out: Path, parts: list[_Part], settings: BuildSettings) -> Manifest:
    """Number the samples of each split over all tars, and write the set's files."""
    skipped = [item for part in parts for item in part.skipped]
    if not settings.records:
        told = told_reasons(skipped) or "the tars are empty"
        raise UserError(f"no sample is left to put into {out}: {told}")
    splits: dict[str, list[WrittenShard]] = {}
    for split in sorted(settings.records, key=lambda name: (_SPLITS.get(name, len(_SPLITS)), name)):
        keys, shards = count(), splits.setdefault(split, [])
        for part in (part.splits[split] for part in parts if split in part.splits):
            rows = [row._replace(shard=len(shards), key=next(keys)) for row in part.rows]
            shards.append(replace(part, rows=rows))
    return save_set(out, settings, splits, skipped)
