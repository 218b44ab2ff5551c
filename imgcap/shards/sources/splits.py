"""Which split an image belongs to: from a dataset's own names and lists, or by a seeded cut."""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import lines_of, list_in, read_json, read_text
from imgcap.pictures.formats import SUFFIXES

# Flickr_8k.devImages.txt, flickr30k_val.txt, train.txt, test_images.txt ...
_LIST_NAME = re.compile(r"^(.*[._-])?(?P<split>train|val|valid|dev|test)([._-]?(images|ids))?\.txt$", re.IGNORECASE)
STANDARD_NAMES = dict.fromkeys(("train", "training", "restval"), "train")
STANDARD_NAMES |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
STANDARD_NAMES |= dict.fromkeys(("test", "testing"), "test")
HELD_OUT_SHARE = 0.05  # of the images, for `val` and the same again for `test`, when a seed makes the splits

SplitOf = dict[str, str]  # file name -> split


@dataclass(frozen=True)
class Shares:
    """The shares of the images that a seeded cut holds out; none given: HELD_OUT_SHARE each."""

    val: float | None = None
    test: float | None = None

    def cut(self, names: Iterable[str], seed: int, same: Mapping[str, str] | None = None) -> SplitOf:
        """Cut images into train, val and test, at least one each (where its share isn't 0) once there are three.

        An image's place depends on the seed and on the names, not on their order. Images that `same` gives the same
        text, as copies of one picture, come into one split.
        """
        ranked = in_seeded_order(names, seed, same or {})
        total, split_of = sum(map(len, ranked)), SplitOf()
        room = {"val": _held_out(self.val, total), "test": _held_out(self.test, total)} if len(ranked) >= 3 else {}
        for group in ranked[:-1]:  # the last one trains, whatever the shares
            split = next((split for split, left in room.items() if left > 0), "train")
            split_of |= dict.fromkeys(group, split)
            room[split] = room.get(split, 0) - len(group)
        return split_of | dict.fromkeys(ranked[-1] if ranked else (), "train")

    def rule(self, seed: int) -> str:
        """The rule of `cut` as a manifest tells it."""
        val, test = (HELD_OUT_SHARE if share is None else share for share in (self.val, self.test))
        return f"by image, seed {seed}, {100 * val:g}% val, {100 * test:g}% test"


def in_seeded_order(names: Iterable[str], seed: int, same: Mapping[str, str]) -> list[list[str]]:
    """Put names in an order that the seed decides, those of one text in `same` (copies of a picture) together."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(same.get(name, name), []).append(name)
    return sorted(
        groups.values(),
        key=lambda group: hashlib.sha256(f"{seed}/{group[0]}".encode("utf-8", "surrogatepass")).digest(),
    )


def _held_out(share: float | None, images: int) -> int:
    share = HELD_OUT_SHARE if share is None else share
    return max(round(images * share), 1) if share else 0


def standard_split(value: Any, where: str, mend: str = "Rename it") -> str:
    """Turn a split as a dataset calls it (`validation`, `dev`, `restval`) into ours; `UserError` for an unknown one."""
    split = STANDARD_NAMES.get(str(value).strip().lower())
    if split is None:
        raise UserError(f"{where} names the split {str(value)[:60]!a}; splits are {', '.join(STANDARD_NAMES)}. {mend}")
    return split


def is_standard(value: Any) -> bool:
    """Whether a value names a split, as any dataset calls it."""
    return str(value).strip().lower() in STANDARD_NAMES


def split_in(name: str) -> str:
    """Find the split that a file's or folder's name tells (`train-00000-of-00002.parquet`); empty where not one."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {STANDARD_NAMES[word] for word in words if word in STANDARD_NAMES}
    return found.pop() if len(found) == 1 else ""


def split_lists(folder: Path) -> dict[Path, str]:
    """Find the lists of image names in a folder, each with its split; empty where there are none."""
    lists = {}
    for path in sorted(folder.iterdir()):
        match = _LIST_NAME.match(path.name)
        if match and path.is_file():
            lists[path] = STANDARD_NAMES[match["split"].lower()]
    return lists


def read_splits(path: Path) -> SplitOf:
    """Read splits from a folder of lists (an image a line, with or without its suffix) or from a Karpathy JSON file.

    Raises `UserError` for any other path, and for an image in two splits.
    """
    if path.is_dir():
        lists = split_lists(path)
        if not lists:
            raise UserError(
                f"{path} holds no split lists; give a folder with one of Flickr_8k.{{train,dev,test}}Images.txt "
                "or {train,val,test}.txt at least, or leave --splits out"
            )
        return _from_lists(lists)
    if path.suffix == ".json":
        return _from_karpathy(path, read_json(path))
    if not path.exists():
        raise UserError(f"there is no {path}; give a folder of split lists with --splits")
    raise UserError(f"--splits {path} is neither a folder of lists nor a Karpathy dataset_*.json file")


def _from_lists(lists: dict[Path, str]) -> SplitOf:
    found: dict[str, tuple[str, str]] = {}
    for path, split in lists.items():
        for number, line in enumerate(lines_of(read_text(path)), 1):
            name = line.strip()
            if not name:
                continue
            before = found.setdefault(name, (split, path.name))
            if before[0] != split:
                raise UserError(
                    f"{name} is in both {before[1]} and {path.name} (line {number}); take it out of one of them"
                )
    for name, (split, file) in found.items():
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in SUFFIXES and found.get(stem, (split,))[0] != split:
            raise UserError(f"{name} is in {file}, and {stem} in {found[stem][1]}; take it out of one of them")
    return {name: split for name, (split, _) in found.items()}


def places_in(split_of: SplitOf, names: Iterable[str]) -> SplitOf:
    """The splits of names, by lists that may leave out folders and suffixes, and of what else the lists hold."""
    found, beside = SplitOf(), dict(split_of)
    for name in names:
        forms = [name, posixpath.basename(name)]
        listed = next((form for form in forms + [posixpath.splitext(f)[0] for f in forms] if form in split_of), None)
        if listed is not None:
            found[name] = split_of[listed]
            beside.pop(listed, None)
    return found | beside


def _from_karpathy(path: Path, content: Any) -> SplitOf:
    splits = SplitOf()
    for number, image in enumerate(list_in(content, "images", f"{path} is no Karpathy file"), 1):
        name = image.get("filename") if isinstance(image, dict) else None
        if not isinstance(name, str) or "split" not in image:
            raise UserError(
                f"{path} is no Karpathy file: image {number} has no `filename` or no `split`; mend it, or give lists"
            )
        splits[name] = standard_split(image.get("split"), f"{path}, image {number} ({name}),")
    return splits
