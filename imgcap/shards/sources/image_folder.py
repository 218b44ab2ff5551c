"""Matching captioned names with the image files of a folder."""

import functools
import hashlib
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from imgcap.errors import UserError
from imgcap.pictures.files import files_beneath, left_out
from imgcap.pictures.formats import SUFFIXES
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.sources.splits import SplitOf
from imgcap.types import Record

_ENDS = 4096  # bytes at both ends of files of one size; those that differ are rarely equal there


class ImageFiles:
    """The picture files beneath a folder, found by whatever a table calls them.

    A name may be a path from the folder, an absolute one, or either without its suffix. One that leads nowhere is found
    by its last part, where one picture alone has that and no other name leads to it. `UserError` where the folder
    can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            os.scandir(folder).close()
        except FileNotFoundError:
            raise UserError(f"there is no folder {folder}; give the folder of the images with --images") from None
        except OSError as error:
            reason = f"{error.strerror}; give the folder of the images with --images"
            raise UserError(f"cannot list {folder}: {reason}") from None
        files, root = list(files_beneath(folder)), os.path.join(folder, "")
        self.all_names = sorted(str(file).removeprefix(root) for file in files)
        self.names = [name for name in self.all_names if posixpath.splitext(name)[1].lower() in SUFFIXES]
        self.left_out = left_out(files)
        self._known = set(self.names)
        self.by_end = 0  # files that `find_all` has found by the last part of their names alone

    @property
    def notes(self) -> tuple[str, ...]:
        """The line that says how many files were found by the last part of their name alone, if there were any."""
        told = f"{self.by_end:,} pictures found by the last part of their name alone, in {self.folder}"
        return (told,) if self.by_end else ()

    @functools.cached_property
    def _stems(self) -> dict[str, str]:
        """The names by what they are without suffix, where that is one's alone."""
        stems = [posixpath.splitext(name)[0] for name in self.names]
        times = Counter(stems)
        return {stem: name for stem, name in zip(stems, self.names, strict=True) if times[stem] == 1}

    @functools.cached_property
    def _ends(self) -> dict[str, list[str]]:
        """The names by their last part, with and without its suffix."""
        ends: dict[str, list[str]] = {}
        for name in self.names:
            last = _folded(posixpath.basename(name))
            for end in {last, posixpath.splitext(last)[0]}:
                ends.setdefault(end, []).append(name)
        return ends

    def find(self, name: str, near: str = "") -> Path | None:
        """Find the file that a name leads to, from the subfolder `near` or from the folder itself."""
        if not near and name in self._known:
            return self.folder / name
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            if posixpath.isabs(written):
                roots = (
                    os.path.join(os.path.abspath(self.folder), ""),
                    os.path.join(os.path.realpath(self.folder), ""),
                )
                root = next((root for root in roots if written.startswith(root)), None)
                if root is None:
                    return Path(written) if os.path.isfile(written) else None
                written = written.removeprefix(root)
            for start in dict.fromkeys((near, "")):
                inside = posixpath.normpath(posixpath.join(start, written))
                inside = inside if inside in self._known else self._stems.get(inside, inside)
                if inside in self._known or os.path.isfile(self.folder / inside):
                    return self.folder / inside
        return None

    def find_all(self, names: Iterable[str], near: str = "", of_others: Collection[Path] = ()) -> dict[str, Path]:
        """Find the files of names; `by_end` counts those that were found by their last part alone.

        Files `of_others`, which other tables name, are none of the latter.
        """
        names = list(dict.fromkeys(names))
        found = {name: path for name in names if (path := self.find(name, near))}
        taken, ends = {*found.values(), *of_others}, dict[Path, list[str]]()
        for name in names:
            if name in found:
                continue
            same = self._ends.get(_folded(posixpath.basename(name.replace("\\", "/"))), [])
            if len(same) == 1:
                ends.setdefault(self.folder / same[0], []).append(name)
        by_end = {claimed[0]: path for path, claimed in ends.items() if len(claimed) == 1 and path not in taken}
        self.by_end += len(by_end)
        return found | by_end

    def relative(self, path: Path) -> str:
        """The name of a file from the folder; its whole path where it lies elsewhere."""
        return str(path).removeprefix(os.path.join(self.folder, ""))

    def without_captions(self, captioned: Iterable[Path], everywhere: bool = False) -> list[Skipped]:
        """Name the images that have no caption, in the folders of those that have one or `everywhere`."""
        known = {self.relative(path) for path in captioned}
        folders = {posixpath.dirname(name) for name in known}
        return [
            Skipped(name, "image without captions")
            for name in self.names
            if name not in known and (everywhere or posixpath.dirname(name) in folders)
        ]


def records_from(
    captions: Mapping[str, list[str]], images: ImageFiles, split_of: SplitOf
) -> tuple[dict[str, list[Record]], list[Skipped]]:
    """Join captions, image files and splits by file name: records by split, and what was skipped.

    Captions without an image, images without captions and images that no split lists are skipped and named.
    """
    found = images.find_all(captions)
    refuse_wrong_folder(captions, found, images.folder)
    splits: dict[str, list[Record]] = {}
    skipped = []
    for name, texts in captions.items():
        if name not in found:
            skipped.append(Skipped(name, "captions without an image"))
        elif not texts:
            skipped.append(Skipped(name, "image without captions"))
        elif name not in split_of:
            skipped.append(Skipped(name, "in no split list"))
        else:
            record = Record(image_id_of(name), name, found[name], tuple(texts))
            splits.setdefault(split_of[name], []).append(record)
    skipped += [Skipped(name, "listed in a split, without captions") for name in split_of if name not in captions]
    return in_order(splits), skipped + images.without_captions(found.values())


def in_order(splits: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Order splits as train, val and test, and leave out those that hold nothing."""
    return {split: splits[split] for split in ("train", "val", "test") if splits.get(split)}


def refuse_wrong_folder(named: Iterable[str], found: Collection[str], folder: Path) -> None:
    """Raise `UserError` where not one captioned image lies in the folder."""
    named = list(named)
    if named and not found:
        raise UserError(
            f"none of the {len(named)} captioned images lies in {folder} (the first is {named[0]}); "
            "give their folder with --images"
        )


def copies(files: Mapping[str, Path]) -> dict[str, str]:
    """Name for each file that is a copy of another, byte for byte, one text for all of its copies."""
    alike = [list(files)]
    for key in (_size, _hash_of_ends, _hash):
        alike = [group for names in alike for group in _grouped(names, files, key) if len(group) > 1]
    return {name: group[0] for group in alike for name in group}


def _grouped(names: list[str], files: Mapping[str, Path], key: Callable[[Path], object]) -> Collection[list[str]]:
    groups: dict[object, list[str]] = {}
    for name in names:
        try:
            groups.setdefault(key(files[name]), []).append(name)
        except OSError:  # told when the set is built
            continue
    return groups.values()


def _size(path: Path) -> int:
    return path.stat().st_size


def _hash_of_ends(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(_ENDS)
        file.seek(-min(_ENDS, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return hashlib.sha256(start + file.read()).digest()


def _hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _folded(name: str) -> str:
    """A name without what file systems change: capitals, and how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()
