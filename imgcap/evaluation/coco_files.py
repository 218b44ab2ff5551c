"""Captions in COCO's two formats: references (annotations of images) and results (one caption an image)."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import read_json
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import as_image_id


def read_references(where: str) -> dict[int, list[str]]:
    """Read all captions of each image, in the file's order, from COCO_CAPTIONS.json or `shards/NAME:SPLIT`.

    Raises `UserError` for a file that is not of captions in COCO's format (https://cocodataset.org/#format-data).
    """
    reader = split_of_shards(where)
    if reader is not None:
        return captions_of(reader)
    content = _read_json(Path(where))
    for name in ("annotations", "images"):
        if not isinstance(content, dict) or not isinstance(content.get(name, [] if name == "images" else None), list):
            raise UserError(f"{where} has no list {name!r}; references are a file like captions_val2017.json")
    references: dict[int, list[str]] = {}
    for number, image in enumerate(content.get("images", []), 1):
        references[_image_id(image, "id", f"{where}, image {number},")] = []
    for number, annotation in enumerate(content["annotations"], 1):
        place = f"{where}, annotation {number},"
        references.setdefault(_image_id(annotation, "image_id", place), []).append(_caption(annotation, place))
    return references


def captions_of(reader: ShardReader) -> dict[int, list[str]]:
    """All captions of each image of a split, images in the order of the shards."""
    samples = (reader.read_text(index) for index in range(len(reader)))
    return {sample.image_id: sample.captions for sample in samples}


def names_of(reader: ShardReader) -> dict[int, str]:
    """The name of each image's file in a split."""
    samples = (reader.read_text(index) for index in range(len(reader)))
    return {sample.image_id: sample.file_name for sample in samples}


def file_names(where: str) -> dict[int, str]:
    """The names of the images' files, as far as results, references or `shards/NAME:SPLIT` tell them."""
    if (reader := split_of_shards(where)) is not None:
        return names_of(reader)
    content = _read_json(Path(where))
    if isinstance(content, list):
        entries, id_, name = content, "image_id", "image"
    else:
        entries, id_, name = content.get("images", []), "id", "file_name"
    return {_image_id(entry, id_, where): str(entry[name]) for entry in entries if name in entry}


def split_of_shards(where: str) -> ShardReader | None:
    """The split that `shards/NAME:SPLIT` names; None for a file."""
    folder, colon, split = where.rpartition(":")
    return ShardReader(folder, split) if colon and Path(folder).is_dir() else None


def read_results(where: str) -> dict[int, str]:
    """Read the caption of each image from a result file, [{"image_id": ..., "caption": ...}, ...]."""
    content = _read_json(Path(where))
    if not isinstance(content, list):
        raise UserError(f"{where} holds no list; results are [{{'image_id': ..., 'caption': ...}}, ...]")
    hypotheses: dict[int, str] = {}
    for number, result in enumerate(content, 1):
        place = f"{where}, entry {number},"
        image_id = _image_id(result, "image_id", place)
        if image_id in hypotheses:
            raise UserError(f"{place} is the second caption of image {image_id}; keep one an image")
        hypotheses[image_id] = _caption(result, place)
    return hypotheses


def with_other_images(hypotheses: Mapping[int, str], seed: int) -> dict[int, str]:
    """Give every image the caption of another one: what is left of a score is what the language alone earns."""
    if len(hypotheses) < 2:
        raise UserError("captions of fewer than two images can't change places; give more results")
    order = sorted(hypotheses)
    random.Random(seed).shuffle(order)
    return {image_id: hypotheses[order[place - 1]] for place, image_id in enumerate(order)}


def _read_json(path: Path) -> Any:
    return read_json(path, "name a file of captions in COCO's format")


def _image_id(entry: Any, key: str, where: str) -> int:
    """The id of an image in an entry; `where` names the entry."""
    image_id = as_image_id(entry.get(key)) if isinstance(entry, dict) else None
    if image_id is None:
        raise UserError(f"{where} has no whole number {key!r}: {_shown(entry)}; mend it, or take it out")
    return image_id


def _caption(entry: dict[str, Any], where: str) -> str:
    caption = entry.get("caption")
    if not isinstance(caption, str):
        raise UserError(f"{where} has no text 'caption': {_shown(entry)}; mend it, or take it out")
    return caption


def _shown(entry: Any) -> str:
    return json.dumps(entry)[:80]
