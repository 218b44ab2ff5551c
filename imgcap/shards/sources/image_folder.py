"""The image files of a folder, and how captioned names are matched with them."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.sources.splits import SplitOf
from imgcap.types import Record

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_ORDER = ("train", "val", "test")


def list_images(folder: Path) -> set[str]:
    """The names of the image files that lie in a folder, not in its subfolders."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if Path(entry.name).suffix.lower() in _SUFFIXES}
    except FileNotFoundError:
        raise UserError(f"there is no folder {folder}; give the folder of the images with --images") from None
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}; give the folder of the images with --images"
        ) from None


def records_from(
    captions: dict[str, list[str]], folder: Path, split_of: SplitOf
) -> tuple[dict[str, list[Record]], list[Skipped]]:
    """Join captions, files and splits by file name.

    Captions without an image, images without captions and images that no split lists are skipped and named.
    """
    present = list_images(folder)
    refuse_strangers(captions, present, folder)
    splits: dict[str, list[Record]] = {}
    skipped = []
    for name, texts in captions.items():
        if name not in present:
            skipped.append(Skipped(name, "captions without an image"))
        elif not texts:
            skipped.append(Skipped(name, "image without captions"))
        elif name not in split_of:
            skipped.append(Skipped(name, "in no split list"))
        else:
            record = Record(image_id_of(name), name, folder / name, tuple(texts))
            splits.setdefault(split_of[name], []).append(record)
    skipped += [Skipped(name, "listed in a split, without captions") for name in split_of if name not in captions]
    skipped += without_captions(present, captions)
    return in_order(splits), skipped


def without_captions(present: Iterable[str], captioned: Collection[str]) -> list[Skipped]:
    return [Skipped(name, "image without captions") for name in sorted(present) if name not in captioned]


def in_order(splits: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Train, val and test, as far as they hold anything."""
    return {split: splits[split] for split in _ORDER if splits.get(split)}


def refuse_strangers(named: Iterable[str], present: Collection[str], folder: Path) -> None:
    """An error where not one captioned image lies in the folder: it is the wrong one."""
    named = list(named)
    if any(name in present for name in named):
        return
    hint = next((f"; did you mean {child}?" for child in _subfolders(folder) if named[0] in list_images(child)), "")
    raise UserError(
        f"none of the {len(named)} captioned images lies in {folder} (the first is {named[0]}); "
        f"give their folder with --images{hint}"
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir())
