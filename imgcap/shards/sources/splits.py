"""Which split an image belongs to: from a dataset's own lists, or by a seeded cut."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.sources.text_file import read_json, read_text

# Flickr_8k.devImages.txt, flickr30k_val.txt, train.txt, test_images.txt ...
_LIST_NAME = re.compile(r"^(.*[._-])?(?P<split>train|val|valid|dev|test)([._-]?(images|ids))?\.txt$", re.IGNORECASE)
STANDARD_NAMES = {"train": "train", "restval": "train", "val": "val", "valid": "val", "dev": "val", "test": "test"}
HELD_OUT_SHARE = 0.05  # of the images, for `val` and the same again for `test`, when a seed makes the splits

SplitOf = dict[str, str]  # file name -> split


def seeded_splits(names: Iterable[str], seed: int) -> SplitOf:
    """Cut images 90 : 5 : 5 into train, val and test, at least one each once there are three.

    An image's place depends on the seed and on the names in the caption file, not on their order.
    """
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    held_out = max(round(len(ranked) * HELD_OUT_SHARE), 1) if len(ranked) >= 3 else 0
    splits = ["val"] * held_out + ["test"] * held_out
    splits += ["train"] * (len(ranked) - len(splits))
    return dict(zip(ranked, splits, strict=True))


def seeded_rule(seed: int) -> str:
    """The rule of `seeded_splits` as a manifest tells it."""
    return f"by image, seed {seed}, {HELD_OUT_SHARE:.0%} val, {HELD_OUT_SHARE:.0%} test"


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
        for line in read_text(path).split("\n"):
            name = line.strip()
            if not name:
                continue
            name = name if "." in name else f"{name}.jpg"
            before = found.setdefault(name, (split, path.name))
            if before[0] != split:
                raise UserError(f"{name} is in both {before[1]} and {path.name}; take it out of one of them")
    return {name: split for name, (split, _) in found.items()}


def _from_karpathy(path: Path, content: Any) -> SplitOf:
    try:
        return {image["filename"]: STANDARD_NAMES[image["split"]] for image in content["images"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no Karpathy file: {error!r}; it needs images with `filename` and `split`") from None
