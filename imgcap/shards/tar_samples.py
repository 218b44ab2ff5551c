"""The samples of a tar that others wrote, as readers of WebDataset expect them: one rule for indexes and for streams.

A sample is the members of one key, wherever they stand in the tar: an image, and captions. shards/README.md tells what
a key is and what counts. Members are never extracted, unpickled or run, and no name of one becomes a path.
"""

import json
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from imgcap.files.text import lines_of
from imgcap.pictures.formats import SUFFIXES
from imgcap.pictures.opening import UnreadableImage, check_header
from imgcap.shards.source import Skipped
from imgcap.shards.sources.text_file import captions_in
from imgcap.shards.tar_members import DAMAGED, BehindTheEndError, Member, members_of

IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)  # the first that a sample has
CAPTIONS = ("txt", "caption", "json")  # the first that holds a caption
_ORDER = {kind: place for place, kind in enumerate((*IMAGES, *CAPTIONS))}
KEYS = ("caption", "captions", "text", "sentence", "sentences", "raw", "description")  # of a JSON document
NO_IMAGE, NO_CAPTIONS = "sample without an image", "image without captions"
TWICE = "key that an earlier sample of the tar has"

_MOST_BYTES = 16 << 20  # of a member that holds captions
_DEEPEST = 4  # lists and objects of a JSON document within each other, down to a caption
_MOST_LINKS = 8  # one after the other
_TOLD = 6  # suffixes of a reason
_BROKEN = "a header in it is none"


class _Group(NamedTuple):
    """The members of a key, by suffix."""

    key: str
    members: dict[str, Member]

    def of(self, name: str) -> str:
        """The key of a sample that a field of this name tells from others."""
        return f"{self.key}.{name}" if name else self.key


class _Choice(NamedTuple):
    """The suffixes that a sample may be read from; an `optional` one is none where its captions hold no caption."""

    key: str
    image: str
    captions: list[str]
    optional: bool = False


class TarSample(NamedTuple):
    """A sample of a tar: its key, its image as member and as bytes, and its captions."""

    key: str
    image: Member
    data: bytes
    captions: list[str]


@dataclass
class TarAccount:
    """What reading a tar has come upon beside the samples that it gave. `damage` is why it could not be read on."""

    skipped: list[Skipped] = field(default_factory=list)
    suffixes: set[str] = field(default_factory=set)
    joined: int = 0  # samples whose members lie apart
    damage: str = ""


class TarSamples:
    """The samples of one tar, whose headers are read at once; `name` stands before the keys in `account.skipped`.

    Where the tar is cut or damaged, `account.damage` says how, and the samples are those before that place.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.account = TarAccount()
        self._groups: dict[str, _Group] = {}  # by key, in one form of Unicode
        self._named: dict[str, Member] = {}
        self._apart: set[str] = set()
        self._read_headers()
        self._follow_links()
        self.account.joined = len(self._apart)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._groups)

    def read(self, left_out: Container[str] = ()) -> Iterator[TarSample]:
        """Yield the samples in the order of their first members, but for keys `left_out`; skip and name what is none.

        Of an image no more than its header is looked at.
        """
        for group in self._groups.values():
            self.account.suffixes |= group.members.keys()
            for key, image, captions, optional in self._choices(group):
                if key in left_out:
                    continue
                try:
                    data = self._bytes(group.members[image])
                    check_header(data)
                    found = self._captions([group.members[suffix] for suffix in captions], key)
                except UnreadableImage as error:
                    self._skip(key, str(error))
                except ValueError as error:
                    if not optional:
                        self._skip(key, str(error))
                else:
                    yield TarSample(key, group.members[image], data, found)

    def _skip(self, key: str, reason: str) -> None:
        self.account.skipped.append(Skipped(f"{self._name}/{key}", reason))

    # ------------------------------------------------------------------------------------ members into groups

    def _read_headers(self) -> None:
        """Group the members of the tar by key."""
        key, run, doubled = "", dict[str, Member](), Counter[str]()
        try:
            for found, suffix, member in members_of(self._file, self._named):
                if found != key:
                    self._close(key, run, doubled)
                    key, run, doubled = found, {}, Counter()
                if suffix in run:
                    doubled[suffix] += 1
                else:
                    run[suffix] = member
        except DAMAGED as error:
            self.account.damage = str(error) if isinstance(error, tarfile.TarError) else _BROKEN
            if not isinstance(error, BehindTheEndError):
                return  # the last sample may lack members
        self._close(key, run, doubled)

    def _close(self, key: str, run: dict[str, Member], doubled: Counter[str]) -> None:
        """Take members of one key that stand side by side: as a sample, or with an earlier one that lacks them."""
        if not run:
            return
        known = _in_one_form(key)
        before = self._groups.setdefault(known, _Group(key, run)).members
        times = max(doubled.values(), default=0)
        if before is not run:
            if before.keys() & run.keys() or (_is_whole(before) and _is_whole(run)):
                times += 1
            else:
                before |= run
                self._apart.add(known)
        for _ in range(times):
            self._skip(key, TWICE)

    def _follow_links(self) -> None:
        """Put the members that links lead to in the links' place."""
        for group in self._groups.values():
            for suffix, member in group.members.items():
                if member.target:
                    end, left = member, _MOST_LINKS
                    while end.target:
                        end, left = self._named.get(end.target, _NOWHERE) if left else _NOWHERE, left - 1
                    group.members[suffix] = end._replace(name=member.name, lack=member.lack or end.lack)

    # ------------------------------------------------------------------------------------ groups into samples

    def _choices(self, group: _Group) -> Iterator[_Choice]:
        """Pair the images and captions of a key: by suffix alone, by equal fields before it, or as there is but one.

        A field is what stands between the key and the last suffix: `v1` of `img.v1.jpg`, none of `img.jpg`.
        """
        images, captions = _by_field(group.members)
        paired = [name for name in images if name in captions]
        for name in paired:
            yield _Choice(group.of(name), images[name], captions[name], bool(name) and "" in paired)
        if "" in paired:  # the others are fields of this sample, which nobody reads
            return
        if not paired and (one := _the_one(images)) is not None and (other := _the_one(captions)) is not None:
            yield _Choice(group.key, images[one], captions[other])
            return
        alone, texts = ({name: found[name] for name in found if name not in paired} for found in (images, captions))
        alone = {"": alone[""]} if "" in alone else alone
        for name in alone or texts:
            self._skip(group.of(name), _unpaired(bool(alone), bool(texts), group.members))

    def _captions(self, members: list[Member], key: str) -> list[str]:
        """Read the captions of the first member that holds some; ValueError says why none does."""
        reasons = []
        for member in members:
            skipped: list[Skipped] = []
            try:
                found = captions_in(captions_of(self._bytes(member), member.name), f"{self._name}/{key}", skipped)
            except ValueError as error:
                reasons += [str(error)] if str(error) != NO_CAPTIONS else []
                continue
            self.account.skipped += skipped
            if found:
                for reason in reasons:
                    self._skip(key, reason)
                return found
        raise ValueError(next(iter(reasons), NO_CAPTIONS))

    def _bytes(self, member: Member) -> bytes:
        if member.lack:
            raise ValueError(member.lack)
        self._file.seek(member.offset)
        return self._file.read(member.size)


_NOWHERE = Member("", 0, 0, "link to what the tar doesn't hold")


def _in_one_form(key: str) -> str:
    """A key as it is compared: an é of one letter, as Linux writes it, is that of two, as macOS does."""
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def _is_whole(members: dict[str, Member]) -> bool:
    kinds = {suffix.rpartition(".")[2] for suffix in members}
    return not (kinds.isdisjoint(IMAGES) or kinds.isdisjoint(CAPTIONS))


def _by_field(members: dict[str, Member]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sort the suffixes of a key by the fields before them: the image's, and those of captions, in their order.

    The captions `a.jpg.txt` are those of `a.jpg`.
    """
    images, captions, texts = dict[str, str](), dict[str, list[str]](), list[tuple[str, str]]()
    for suffix in sorted(members, key=_order) if len(members) > 2 else members:
        name, _, kind = suffix.rpartition(".")
        if kind in CAPTIONS:
            texts.append((name, suffix))
        elif kind in IMAGES:
            images.setdefault(name, suffix)
    for name, suffix in texts:
        field_of = name.rpartition(".")[0] if name in images.values() else name
        captions.setdefault(field_of, []).append(suffix)
    return images, captions


def _order(suffix: str) -> int:
    """The place of a suffix among those that are read; behind them where it is of none."""
    return _ORDER.get(suffix.rpartition(".")[2], len(_ORDER))


def _the_one(fields: dict[str, Any]) -> str | None:
    """The field that is chosen where images and captions have different ones: none, or the only one."""
    return "" if "" in fields else next(iter(fields)) if len(fields) == 1 else None


def _unpaired(images: bool, captions: bool, members: dict[str, Member]) -> str:
    """Why images have no captions, or captions no image, and which suffixes their key has."""
    if images and captions:
        return f"images and captions of one key, in doubt which belong together: {_told(members)}"
    kinds = {suffix.rpartition(".")[2] for suffix in members}
    others = _told(kinds - {*IMAGES, *CAPTIONS})
    return f"{NO_CAPTIONS if images else NO_IMAGE}{others and f' (beside it: {others})'}"


def _told(suffixes: Iterable[str]) -> str:
    found = sorted(f".{suffix}" for suffix in suffixes)
    return ", ".join(found[:_TOLD]) + (", …" if len(found) > _TOLD else "")


def captions_of(data: bytes, name: str) -> list[Any]:
    """Read what a member holds as captions: a text, one a line, or those of a JSON document, which may be any values.

    ValueError says why there are none.
    """
    if len(data) > _MOST_BYTES:
        raise ValueError(f"captions of more than {_MOST_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text) if name.lower().endswith("json") else text
    except (ValueError, RecursionError):
        raise ValueError("captions that are no UTF-8 or no JSON") from None
    if isinstance(content, dict) and content and content.keys().isdisjoint(KEYS):
        raise ValueError(f"{NO_CAPTIONS} (its .json has no key {', '.join(KEYS[:-1])} or {KEYS[-1]})")
    found: list[Any] = []
    for value in _texts_in(content, _DEEPEST):
        found += [line for line in lines_of(value) if line.strip()] if isinstance(value, str) else [value]
    if not found:
        raise ValueError(NO_CAPTIONS)
    return found


def _texts_in(content: Any, depth: int) -> list[Any]:
    """The captions of a JSON value: a text, those of a list, or what an object has under its caption key."""
    if isinstance(content, dict) and depth:
        found = next((content[key] for key in KEYS if content.get(key)), None)
        return [] if found is None else _texts_in(found, depth - 1)
    if isinstance(content, list) and depth:
        return [text for item in content for text in _texts_in(item, depth - 1) or [None]]
    return [content]
