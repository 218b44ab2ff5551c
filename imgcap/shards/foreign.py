"""Indexing tars that others have written, so that they are a shard set as they lie, without a byte rewritten.

A sample is the members of one key, as WebDataset has it (the name up to the first dot of its last part): one image,
and its captions in `.txt`, `.caption` or `.json`. The captions are tokenised once and written beside the index; images
are read from the tars by their place. Members are never extracted, unpickled or run.
"""

import io
import json
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import braceexpand

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of, sha256_of_bytes, write_whole
from imgcap.files.fetch import fetch, is_address
from imgcap.pictures.opening import UnreadableImage, check_header
from imgcap.ranks.progress import Progress
from imgcap.shards.index import IndexRow
from imgcap.shards.manifest import MANIFEST_NAME, BuildSettings, CaptionsInfo, Manifest, ShardInfo, told_reasons
from imgcap.shards.parallel import Workers
from imgcap.shards.sample import Tokeniser, encoded_captions
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.token_counts import TokenCounts
from imgcap.shards.writer import WrittenShard, save_set
from imgcap.types import Record

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("txt", "caption", "json")  # the first that a sample has
_KEYS = ("caption", "captions", "text")  # of a JSON document
_SPLITS = {"train": 0, "val": 1, "test": 2}  # in this order, others behind them
_HELD_OUT = 0.05  # of the images, for `val` and the same again for `test`
_END = bytes(1024)  # what closes a tar, at least


def expand(patterns: Iterable[str], others: tuple[str, ...] = ()) -> list[str]:
    """Find the tars of patterns: paths with wildcards, and paths or addresses with ranges such as `{00000..00331}`.

    What begins like one of `others` is taken as it is. Raises `UserError` for a tar that isn't there or comes twice.
    """
    found: list[str] = []
    for pattern in patterns:
        try:
            names = list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise UserError(f"{pattern} is no pattern ({error}); write a range as {{00000..00331}}") from None
        for name in names:
            if is_address(name) or name.startswith(others):
                found.append(name)
                continue
            path = Path(name).absolute()
            matches = sorted(path.parent.glob(path.name)) if set("*?[") & set(path.name) else [path]
            if not matches or not matches[0].is_file():
                raise UserError(f"there is no {name}; give the tars, a pattern of theirs, or a range {{00000..00331}}")
            found += map(str, matches)
    if not found:
        raise UserError("no tars are named")
    (name, times), *_ = Counter(found).most_common(1)
    if times > 1:
        raise UserError(f"{name} is named twice; name each tar once")
    return found


def index_foreign(
    tars: list[str],
    out: Path,
    tokeniser: Tokeniser,
    language: str = "en",
    split: str | None = None,
    seed: int = 0,
    workers: int = 1,
    skip_damaged: bool = False,
) -> Manifest:
    """Write index, captions and manifest of some tars into the folder `out`.

    With no `split`, about 5 % of the images go to `val` and to `test`, by a hash of `seed` and key. A tar that is cut
    or can't be read to its end is a UserError, or with `skip_damaged` gives the samples before that place.
    """
    if (out / MANIFEST_NAME).exists():
        raise UserError(f"{out} holds a shard set already; choose another --out, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    task = _Indexing(out, tokeniser, split, seed, skip_damaged, _short_names(tars))
    with Workers(task, workers) as indexing, Progress(len(tars), f"indexing into {out}", "tars") as progress:
        parts: list[_Part] = []
        for part in indexing.map(list(enumerate(tars))):
            parts.append(part)
            progress.advance()
    return _finish(out, parts, _settings(tars, tokeniser, language, split, seed, parts))


def _short_names(tars: list[str]) -> dict[str, str]:
    """A name for each tar: the last parts of its path, as many as it takes for all names to differ."""
    for depth in count(1):
        names = {tar: "/".join(PurePosixPath(tar).parts[-depth:]) for tar in tars}
        if len(set(names.values())) == len(names):
            break
    return names


@dataclass
class _Part:
    """A tar's share of each split, and what was skipped in it."""

    splits: dict[str, WrittenShard]
    skipped: list[Skipped]


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
    split: str | None
    seed: int
    skip_damaged: bool
    names: dict[str, str]  # how a tar is called in the names of its samples

    def __call__(self, numbered: tuple[int, str]) -> _Part:
        number, name = numbered
        if not is_address(name):
            return self._index(number, name, Path(name))
        fetched = self.out / f".fetched-{number:05d}.tar"
        try:
            fetched.unlink(missing_ok=True)  # of a call that was killed, and perhaps of another tar
            fetch(name, fetched)
            return self._index(number, name, fetched)
        finally:
            fetched.unlink(missing_ok=True)

    def _index(self, number: int, name: str, path: Path) -> _Part:
        documents: dict[str, _Documents] = defaultdict(_Documents)
        skipped: list[Skipped] = []
        with path.open("rb") as file:
            for key, members in self._samples(name, file, skipped):
                self._take(f"{self.names[name]}/{key}", members, file, documents, skipped)
        size, sha256 = path.stat().st_size, sha256_of(path)
        splits = {}
        for split, held in sorted(documents.items()):
            captions = f"{split}-{number:05d}.captions"
            write_whole(self.out / captions, bytes(held.data))
            beside = CaptionsInfo(captions, len(held.data), sha256_of_bytes(bytes(held.data)))
            info = ShardInfo(name, len(held.rows), size, sha256, beside)
            splits[split] = WrittenShard(info, held.rows, held.captions, held.counts)
        return _Part(splits, skipped)

    def _samples(
        self, name: str, file: Any, skipped: list[Skipped]
    ) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
        """Yield each sample of a tar: its key, and its members by suffix."""
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        key, members, whole = "", dict[str, tarfile.TarInfo](), 0
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError("it ends in the middle of a member")
                    if not member.isfile():
                        continue
                    path = PurePosixPath(member.name)
                    stem, _, suffix = path.name.partition(".")
                    this = str(path.parent / stem)
                    if this != key:
                        if members:
                            yield key, members
                            whole += 1
                        key, members = this, {}
                    members[suffix.lower()] = member
                end = tar.offset
            file.seek(end)
            rest = iter(lambda: file.read(1 << 20), b"")
            if size - end < len(_END) or any(piece.strip(b"\0") for piece in rest):
                raise tarfile.ReadError(f"what stands at byte {end} is neither a member nor the end")
        except (tarfile.TarError, EOFError) as error:
            if not self.skip_damaged:
                raise UserError(
                    f"{name} is cut, compressed or no tar, behind {whole} whole samples: {error}; fetch it again, or "
                    "decompress it, or take what is whole with --skip-damaged"
                ) from None
            skipped.append(Skipped(name, "tar that is cut or can't be read to its end"))
            return  # the last sample may lack members
        if members:
            yield key, members

    def _take(
        self,
        name: str,
        members: dict[str, tarfile.TarInfo],
        file: Any,
        documents: dict[str, _Documents],
        skipped: list[Skipped],
    ) -> None:
        try:
            _refuse_unsafe(members)
            image, described = (members[suffix] for suffix in image_and_captions(members))
            data = _bytes(file, image)
            check_header(data)
            captions = captions_of(_bytes(file, described), described.name)
        except (UnreadableImage, ValueError) as error:
            skipped.append(Skipped(name, str(error)))
            return
        record = Record(image_id_of(name), name, Path(name), tuple(captions))
        document, tokens = encoded_captions(record, self.tokeniser, skipped)
        if not tokens:
            return
        held = documents[self.split or _split_of(name, self.seed)]
        picture = image.offset_data, image.size, zlib.crc32(data)
        written = len(held.data), len(document), zlib.crc32(document)
        held.rows.append(IndexRow(0, len(held.rows), *picture, *written))  # `_finish` numbers shards and keys
        held.data += document + b"\n"
        held.captions += len(tokens)
        held.counts.add(tokens)


def _bytes(file: Any, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    data: bytes = file.read(member.size)
    return data


def _refuse_unsafe(members: dict[str, tarfile.TarInfo]) -> None:
    """Raise ValueError for a name that would leave a folder: nobody writes it by mistake."""
    paths = [PurePosixPath(member.name) for member in members.values()]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise ValueError("unsafe member name")


def image_and_captions(suffixes: Container[str]) -> tuple[str, str]:
    """Choose the suffixes of a sample's image and of its captions; ValueError where one is missing."""
    image, captions = (next((suffix for suffix in known if suffix in suffixes), None) for known in (IMAGES, CAPTIONS))
    if image is None or captions is None:
        raise ValueError("sample without an image" if image is None else "image without captions")
    return image, captions


def captions_of(data: bytes, name: str) -> list[str]:
    """Read captions from a text, one a line, or from a JSON document's caption key; ValueError says what is wrong."""
    try:
        text = data.decode("utf-8-sig")
        if not name.lower().endswith("json"):
            return [line for line in text.splitlines() if line.strip()]
        content = json.loads(text)
        found = next((content[key] for key in _KEYS if content.get(key)), None)
    except (ValueError, AttributeError):
        raise ValueError("captions that are no UTF-8 or no JSON") from None
    captions = [found] if isinstance(found, str) else found
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError("image without captions")
    return [caption.encode("utf-8", "replace").decode() for caption in captions]  # half a pair of surrogates is no text


def _split_of(name: str, seed: int) -> str:
    share = image_id_of(f"{seed}/{name}") / 2**53
    return "val" if share < _HELD_OUT else "test" if share < 2 * _HELD_OUT else "train"


def _settings(
    tars: list[str], tokeniser: Tokeniser, language: str, split: str | None, seed: int, parts: list[_Part]
) -> BuildSettings:
    rule = f"all {split}" if split else f"by image, a hash with seed {seed}: about {_HELD_OUT:.0%} val and test each"
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
