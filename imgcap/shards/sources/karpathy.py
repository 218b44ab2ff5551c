"""Karpathy's splits (Karpathy and Fei-Fei, 2015): `dataset_{flickr8k,flickr30k,coco}.json`; `restval` joins train."""

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import list_in, read_json
from imgcap.shards.source import Skipped, Source, as_image_id, image_id_of
from imgcap.shards.sources.image_folder import ImageFiles, in_order, refuse_wrong_folder
from imgcap.shards.sources.splits import standard_split
from imgcap.shards.sources.text_file import captions_in
from imgcap.types import Record


def read(images: Path, captions: Path) -> Source:
    """Read a Karpathy file. `images` holds the files, or the subfolders that `filepath` names (train2014/ ...).

    Entries that can't be used are skipped and named. Raises `UserError` for a file that holds none.
    """
    content = read_json(captions)
    taken = f"{captions} is no Karpathy file"
    listed = list_in(content, "images", taken)
    skipped: list[Skipped] = []
    places = ((f"{captions.name} image {number}", image) for number, image in enumerate(listed, 1))
    entries = [entry for place, image in places if (entry := _entry(image, place, captions, skipped))]
    if not entries:
        first = skipped[0]
        raise UserError(
            f"{taken}: none of its {len(listed)} images can be used (the first: {first.told}, {first.reason}); it "
            "needs `images` with `filename`, `split` (train, restval, val, test) and `sentences` with `raw`"
        )
    files = ImageFiles(images)
    found = files.find_all(entry.where for entry in entries)
    refuse_wrong_folder((entry.file_name for entry in entries), found, images)
    splits: dict[str, list[Record]] = {}
    for entry in entries:
        path = found.get(entry.where)
        if path is None:
            skipped.append(Skipped(entry.file_name, "captions without an image", entry.place))
        elif not entry.captions:
            skipped.append(Skipped(entry.file_name, "image without captions", entry.place))
        else:
            image_id = image_id_of(entry.file_name) if entry.image_id is None else entry.image_id
            record = Record(image_id, entry.file_name, path, tuple(entry.captions))
            splits.setdefault(entry.split, []).append(record)
    skipped += files.without_captions(found.values())
    name = content.get("dataset")
    name = name if isinstance(name, str) and name else captions.stem.removeprefix("dataset_")
    return Source(name, in_order(splits), skipped, f"karpathy {captions.name}", "karpathy", files.notes)


@dataclass(frozen=True)
class _Entry:
    """An image of the file: where it lies, from the folder of images, and what is said of it."""

    where: str
    file_name: str
    image_id: int | None  # none: the file has no `cocoid` of it
    split: str
    captions: list[str]
    place: str


def _entry(image: Any, place: str, path: Path, skipped: list[Skipped]) -> _Entry | None:
    """Read an entry; None, and the reason among `skipped`, where it can't be used."""
    name = image.get("filename") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        skipped.append(Skipped(place, "image without a `filename`"))
        return None
    image_id = as_image_id(image.get("cocoid"))
    if image_id is None and "cocoid" in image:
        skipped.append(Skipped(name, "image without a number as `cocoid`", place))
        return None
    if image.get("split") in (None, ""):
        skipped.append(Skipped(name, "in no split", place))
        return None
    split = standard_split(image["split"], f"{path}, image {name},")
    sentences, folder = image.get("sentences"), image.get("filepath")
    texts: list[str] = []
    for sentence in sentences if isinstance(sentences, list) else []:
        texts += captions_in(_said(sentence), name, skipped, place)
    where = posixpath.join(posixpath.basename(folder) if isinstance(folder, str) else "", name)
    return _Entry(where, name, image_id, split, texts, place)


def _said(sentence: Any) -> Any:
    """A sentence as it was written, or, where that lacks, its tokens."""
    if not isinstance(sentence, dict):
        return sentence
    tokens = sentence.get("tokens")
    if sentence.get("raw") is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens)
    return sentence.get("raw")
