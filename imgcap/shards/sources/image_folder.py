"""Matching captioned names with the image files of a folder."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from imgcap.errors import UserError
from imgcap.pictures.files import SUFFIXES
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.sources.splits import SplitOf
from imgcap.types import Record


def list_images(folder: Path) -> set[str]:
    """List the names of the image files in a folder, not in its subfolders; `UserError` where it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES}
    except FileNotFoundError:
        raise UserError(f"there is no folder {folder}; give the folder of the images with --images") from None
    except OSError as error:
        reason = f"{error.strerror}; give the folder of the images with --images"
        raise UserError(f"cannot list {folder}: {reason}") from None


def records_from(
    captions: dict[str, list[str]], folder: Path, split_of: SplitOf
) -> tuple[dict[str, list[Record]], list[Skipped]]:
    """Join captions, image files and splits by file name: records by split, and what was skipped.

    Captions without an image, images without captions and images that no split lists are skipped and named.
    """
    present = list_images(folder)
    refuse_wrong_folder(captions, present, folder)
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
    """Name the images that lie in the folder and have no caption."""
    return [Skipped(name, "image without captions") for name in sorted(present) if name not in captioned]


def in_order(splits: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """Order splits as train, val and test, and leave out those that hold nothing."""
    return {split: splits[split] for split in ("train", "val", "test") if splits.get(split)}


def refuse_wrong_folder(named: Iterable[str], present: Collection[str], folder: Path) -> None:
    """Raise `UserError` where not one captioned image lies in the folder."""
    named = list(named)
    if any(name in present for name in named):
        return
    subfolders = sorted(child for child in folder.iterdir() if child.is_dir())
    hint = next((f"; did you mean {child}?" for child in subfolders if named[0] in list_images(child)), "")
    raise UserError(
        f"none of the {len(named)} captioned images lies in {folder} (the first is {named[0]}); "
        f"give their folder with --images{hint}"
    )
