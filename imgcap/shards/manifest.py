"""`manifest.json`: what a shard set holds. It is written last, so a folder that has one is whole."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.durable import write_whole
from imgcap.shards.place import Place
from imgcap.shards.source import Skipped, is_of_caption

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKEN_COUNTS_NAME = "token_counts.json"
EXAMPLES = 3  # of what was left out, for each reason
_MANY_SKIPPED = 0.01


@dataclass(frozen=True)
class ShardInfo:
    """A tar of a split, as the manifest lists it."""

    file: str
    samples: int
    bytes: int
    sha256: str
    captions: "CaptionsInfo | None" = None  # where they lie, if not in the tar


@dataclass(frozen=True)
class CaptionsInfo:
    """The captions of a tar that imgcap did not write: a file of JSON documents, found through the index."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitInfo:
    """A split: its shards in the order of their numbers, and what they hold together."""

    images: int
    captions: int
    index_sha256: str
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True)
class SkippedNames:
    """What was left out for one reason: names, each once for each thing left out, and where in a file it stands."""

    count: int
    names: tuple[str, ...]
    places: tuple[str, ...] = ()  # of each name, such as `captions.csv line 3`, or empty; none where all are

    def examples(self, count: int) -> list[str]:
        """The first of the names, each with its place, without characters that a terminal would obey."""
        told = zip_longest(self.names[:count], self.places[:count], fillvalue="")
        return [ascii(name)[1:-1] + (f" ({place})" if place else "") for name, place in told]


@dataclass(frozen=True)
class BuildSettings:
    """All that decides the bytes of a shard set, beside the image files themselves."""

    name: str
    source: str
    split_rule: str
    tokeniser: str
    language: str
    resize: int | None  # pixels of the shorter side; none: images keep their size
    quality: int  # of the JPEGs that had to be encoded anew
    shard_mb: float
    records_sha256: str
    records: dict[str, int]  # images by split, before unreadable ones are left out


@dataclass(frozen=True)
class Features:
    """An encoder's features, which each sample has beside its image: `KEY.fp16`, cells × width in row-major order."""

    shape: tuple[int, int]
    encoder: str  # name and output stride
    encoder_sha256: str  # of its weights
    image_size: int  # pixels of the square that images were squeezed to
    interpolation: str = "bilinear"  # with which


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; shards/README.md describes its keys."""

    settings: BuildSettings
    splits: dict[str, SplitInfo]
    skipped: dict[str, SkippedNames]
    token_counts_sha256: str | None
    features: Features | None = None
    format_version: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def is_foreign(self) -> bool:
        """Whether the tars are others', which were indexed and not built."""
        return any(shard.captions for info in self.splits.values() for shard in info.shards)

    def how_to_mend(self, place: Place | Path) -> str:
        """End of a line that says how the set becomes whole, where it is damaged."""
        if self.is_foreign:
            return "put its tars back as they were indexed, or index them as they are: imgcap index TARS --out ANOTHER"
        if self.features:
            return f"remove it, and make it again with imgcap cache-features --out {place}"
        return f"mend it with imgcap build SOURCE --out {place} --force"

    def summary(self, folder: Path) -> str:
        """Tell people, in some lines, what the set holds and what was left out."""
        lines = [f"{self.name} in {folder}, splits: {self.settings.split_rule}"]
        for split, info in self.splits.items():
            size = sum(shard.bytes for shard in info.shards) / 1e6
            held = f"{info.images} images, {info.captions} captions, {len(info.shards)} shards, {size:.1f} MB"
            lines.append(f"  {split}: {held}")
        for reason, names in self.skipped.items():
            place = f", {names.places[0]}" if names.places and names.places[0] else ""
            lines.append(f"  skipped: {names.count} × {reason} (the first: {names.names[0]!a}{place})")
        if many := self._many_left_out():
            shown = f"imgcap verify {folder} shows examples, {folder / MANIFEST_NAME} names all of it"
            lines.append(f"  {', '.join(many)}: {shown}")
        if "val" not in self.splits:
            lines.append(
                "  there is no val split, and training needs one: build with --val 0.1 (index: without --split), "
                "or name another split with eval.split"
            )
        return "\n".join(lines)

    def _many_left_out(self) -> list[str]:
        """Tell the shares of images and of captions that were left out, where they are large."""
        of_images = {reason: names for reason, names in self.skipped.items() if not is_of_caption(reason)}
        images = len({name for names in of_images.values() for name in names.names})
        captions = sum(names.count for reason, names in self.skipped.items() if reason not in of_images)
        shares = (
            ("of what was found is left out", images, sum(info.images for info in self.splits.values())),
            ("of the captions are left out", captions, sum(info.captions for info in self.splits.values())),
        )
        return [f"{out / (out + kept):.1%} {told}" for told, out, kept in shares if out > _MANY_SKIPPED * (out + kept)]

    def skipped_table(self) -> str:
        """Tell in lines, by reason and the most frequent first, what was left out, with examples; empty for nothing."""
        if not self.skipped:
            return ""
        ranked = sorted(self.skipped.items(), key=lambda item: -item[1].count)
        rows = [(f"{names.count:,}", reason, ", ".join(names.examples(EXAMPLES))) for reason, names in ranked]
        rows = [("count", "left out when it was made", f"the first {EXAMPLES}"), *rows]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{count:>{widths[0]}}  {reason:<{widths[1]}}  {told}" for count, reason, told in rows)

    def skipped_json(self) -> dict[str, Any]:
        """What was left out, by reason: how much, and examples."""
        return {
            reason: {"count": names.count, "examples": names.examples(EXAMPLES)}
            for reason, names in self.skipped.items()
        }

    def save(self, folder: Path) -> None:
        content = dataclasses.asdict(self)
        for names in content["skipped"].values():
            if not names["places"]:
                del names["places"]
        if self.features is None:
            del content["features"]
        for split in content["splits"].values():
            for shard in split["shards"]:
                if shard["captions"] is None:  # in the tar, as in every set that imgcap writes
                    del shard["captions"]
        content = {"format_version": content.pop("format_version")} | content.pop("settings") | content
        write_whole(folder / MANIFEST_NAME, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, where: Place | Path | str) -> "Manifest":
        """Read the manifest of a folder or address; `UserError` where there is none that this version reads."""
        place = Place.of(where)
        return parse_manifest(manifest_bytes(place), place)


def manifest_bytes(place: Place) -> bytes:
    """Read the manifest's file; `UserError` where there is none."""
    try:
        return place.read(MANIFEST_NAME)
    except FileNotFoundError:
        mend = "check the address, and that all files of the set were copied there"
        if not place.is_remote:
            mend = f"run imgcap build SOURCE --out {place} (again), it finishes what is missing"
        raise UserError(f"{place} has no {MANIFEST_NAME}: no shards, or a build that did not end; {mend}") from None


def parse_manifest(data: bytes, place: Place) -> Manifest:
    """Read a manifest from the bytes of its file; `UserError` where they are damaged or of another version."""
    path = place / MANIFEST_NAME
    try:
        content = json.loads(data)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged; build the shards again with imgcap build --force") from None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has shard format version {version!r}, this program reads version {FORMAT_VERSION}; "
            "build the shards again with imgcap build --force, or use the program that made them"
        )
    try:
        return _from_content(content)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged; build the shards again with imgcap build --force") from None


def _from_content(content: dict[str, Any]) -> Manifest:
    splits = {
        name: SplitInfo(**split | {"shards": tuple(_shard_info(shard) for shard in split["shards"])})
        for name, split in content["splits"].items()
    }
    skipped = {
        why: SkippedNames(found["count"], tuple(found["names"]), tuple(found.get("places", ())))
        for why, found in content["skipped"].items()
    }
    settings = BuildSettings(**{item.name: content[item.name] for item in dataclasses.fields(BuildSettings)})
    features = content.get("features")
    if features:
        features = Features(**features | {"shape": tuple(features["shape"])})
    return Manifest(settings, splits, skipped, content["token_counts_sha256"], features)


def _shard_info(content: dict[str, Any]) -> ShardInfo:
    captions = content.get("captions")
    return ShardInfo(**content | {"captions": captions and CaptionsInfo(**captions)})


def by_reason(skipped: Iterable[Skipped]) -> dict[str, SkippedNames]:
    """Sort what was skipped by its reason, the reasons in alphabetical order."""
    items: dict[str, list[Skipped]] = defaultdict(list)
    for item in skipped:
        items[item.reason].append(item)
    return {reason: _names_of(items[reason]) for reason in sorted(items)}


def _names_of(items: list[Skipped]) -> SkippedNames:
    places = tuple(item.place for item in items)
    return SkippedNames(len(items), tuple(item.file_name for item in items), places if any(places) else ())


def told_reasons(skipped: Iterable[Skipped]) -> str:
    """Tell on one line for which reasons things were skipped, and how many for each."""
    return ", ".join(f"{names.count} × {reason}" for reason, names in by_reason(skipped).items())
