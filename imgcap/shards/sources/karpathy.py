"""Karpathy's splits (Karpathy and Fei-Fei, 2015): `dataset_{flickr8k,flickr30k,coco}.json`; `restval` joins train."""

import posixpath
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.source import Skipped, Source, image_id_of
from imgcap.shards.sources.image_folder import ImageFiles, in_order, refuse_wrong_folder
from imgcap.shards.sources.splits import STANDARD_NAMES
from imgcap.shards.sources.text_file import captions_in, read_json
from imgcap.types import Record


def read(images: Path, captions: Path) -> Source:
    """Read a Karpathy file. `images` holds the files, or the subfolders that `filepath` names (train2014/ ...).

    Raises `UserError` for a file that is none.
    """
    content = read_json(captions)
    skipped: list[Skipped] = []
    try:
        entries = [_entry(image, skipped) for image in content["images"]]
        name = str(content.get("dataset", captions.stem.removeprefix("dataset_")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{captions} is no Karpathy file: {error!r}; it needs `images` with `filename`, `split` "
            "(train, restval, val, test) and `sentences` with `raw`"
        ) from None
    files = ImageFiles(images)
    found = files.find_all(path for path, *_ in entries)
    refuse_wrong_folder((name for _, name, *_ in entries), found, images)
    splits: dict[str, list[Record]] = {}
    for where, file_name, image_id, split, texts in entries:
        path = found.get(where)
        if path is None:
            skipped.append(Skipped(file_name, "captions without an image"))
        elif not texts:
            skipped.append(Skipped(file_name, "image without captions"))
        else:
            splits.setdefault(split, []).append(Record(image_id, file_name, path, tuple(texts)))
    skipped += files.without_captions(found.values())
    return Source(name, in_order(splits), skipped, f"karpathy {captions.name}", "karpathy", files.notes)


_Entry = tuple[str, str, int, str, list[str]]  # path, file name, image id, split, captions


def _entry(image: Any, skipped: list[Skipped]) -> _Entry:
    file_name = str(image["filename"])
    image_id = int(image["cocoid"]) if "cocoid" in image else image_id_of(file_name)
    texts = [text for sentence in image["sentences"] for text in _captions(sentence, file_name, skipped)]
    where = posixpath.join(posixpath.basename(str(image.get("filepath", ""))), file_name)
    return where, file_name, image_id, STANDARD_NAMES[image["split"]], texts


def _captions(sentence: Any, file_name: str, skipped: list[Skipped]) -> list[str]:
    """Read a sentence as it was written, or, where that lacks, its tokens."""
    found = sentence.get("raw")
    if found is None and isinstance(sentence.get("tokens"), list):
        found = " ".join(map(str, sentence["tokens"]))
    return captions_in(found, file_name, skipped)
