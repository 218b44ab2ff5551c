"""COCO captions (Chen et al., 2015): `captions_{train,val}20{14,17}.json` and the folders of the same names.

`train` and `val` are the dataset's own; so are splits that the images of a file name. A train file alone, or one of
another name, is cut by a seed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import list_in, read_json
from imgcap.shards.source import Skipped, Source, as_image_id
from imgcap.shards.sources.image_folder import ImageFiles, in_order, refuse_wrong_folder
from imgcap.shards.sources.splits import Shares, SplitOf, standard_split
from imgcap.shards.sources.text_file import captions_in
from imgcap.types import Record

_FILE_NAME = re.compile(r"^captions_(?P<split>train|val)(?P<year>2014|2017)\.json$")


@dataclass
class Annotations:
    """The content of an annotation file: captions, file names and splits (if it names any) by image id."""

    names: dict[int, str] = field(default_factory=dict)
    captions: dict[int, list[str]] = field(default_factory=dict)
    splits: dict[int, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def read(images: Path, captions: Sequence[Path], seed: int, shares: Shares) -> Source:
    """Read COCO. `captions` are files, or one folder of them; `images` holds train2017/ and the like, or the files.

    Raises `UserError` for files that are no COCO captions, or of two years.
    """
    files = _annotation_files(captions)
    parts = {path: read_annotations(path) for path in files}
    split_of: dict[Path, SplitOf]  # of each file: two of them may have a name in common
    if any(part.splits for part in parts.values()):
        split_of = {
            path: {name: part.splits.get(image_id, "") for image_id, name in part.names.items()}
            for path, part in parts.items()
        }
        rule = "`split` of the images"
    elif len(files) == 1 and _own_split(files[0]) in ("", "train"):
        split_of, rule = {files[0]: shares.cut(parts[files[0]].names.values(), seed)}, shares.rule(seed)
    else:
        split_of = {path: dict.fromkeys(part.names.values(), _own_split(path)) for path, part in parts.items()}
        rule = "standard"
    splits: dict[str, list[Record]] = {}
    skipped: list[Skipped] = []
    notes: list[str] = []
    for path, part in parts.items():
        folder = ImageFiles(_image_folder(path, images))
        skipped += part.skipped + _join(part, folder, split_of[path], splits)
        notes += folder.notes
    return Source("coco", in_order(splits), skipped, ", ".join(path.name for path in files), rule, tuple(notes))


def _annotation_files(captions: Sequence[Path]) -> list[Path]:
    if len(captions) > 1 or not captions[0].is_dir():
        files = list(captions)
    else:
        files = sorted(path for path in captions[0].iterdir() if _FILE_NAME.match(path.name))
        if not files:
            raise UserError(
                f"{captions[0]} holds no captions_{{train,val}}20{{14,17}}.json; give a file with --captions"
            )
    matches = [_FILE_NAME.match(path.name) for path in files]
    if len(files) > 1 and not all(matches):
        raise UserError("several caption files must be captions_{train,val}20{14,17}.json, so that each has a split")
    if len({match["year"] for match in matches if match}) > 1:
        raise UserError(
            f"{', '.join(path.name for path in files)} are two years of the same images; "
            "give the files of one year with --captions"
        )
    return files


def _own_split(path: Path) -> str:
    match = _FILE_NAME.match(path.name)
    return match["split"] if match else ""


def _image_folder(path: Path, images: Path) -> Path:
    match = _FILE_NAME.match(path.name)
    folder = images / (match["split"] + match["year"]) if match else images
    return folder if folder.is_dir() else images


def read_annotations(path: Path) -> Annotations:
    """Read an annotation file; `UserError` where it is none. What of it can't be used is skipped and named."""
    content, part = read_json(path), Annotations()
    taken = f"{path} is no COCO caption file"
    images = list_in(content, "images", taken)
    if isinstance(images[0], dict) and "sentences" in images[0]:
        raise UserError(f"{taken}; this one is Karpathy's: imgcap build karpathy reads it")
    annotations = list_in(content, "annotations", taken)
    for number, image in enumerate(images, 1):
        _add_image(part, image, f"{path.name} image {number}", path)
    for number, annotation in enumerate(annotations, 1):
        _add_caption(part, annotation, f"{path.name} annotation {number}")
    if not any(part.captions.values()):
        first = part.skipped[0]
        raise UserError(
            f"{taken}: of {len(images)} images and {len(annotations)} annotations none gives a caption of an image "
            f"(the first that was left out: {first.told}, {first.reason}); it needs `images` with `id` and `file_name` "
            "and `annotations` with `image_id` and `caption`, as captions_*.json has them and instances_*.json has not"
        )
    return part


def _add_image(part: Annotations, image: Any, place: str, path: Path) -> None:
    image_id, name = (as_image_id(image.get("id")), image.get("file_name")) if isinstance(image, dict) else (None, None)
    if not isinstance(name, str) or not name.strip():
        part.skipped.append(Skipped(place, "image without a `file_name`"))
        return
    if image_id is None:
        part.skipped.append(Skipped(name, "image without a number as `id`", place))
        return
    before = part.names.get(image_id)
    if before is None:
        part.names[image_id], part.captions[image_id] = name, []
        if split := image.get("split"):
            part.splits[image_id] = standard_split(split, f"{path}, image {name},")
    elif before == name:
        part.skipped.append(Skipped(name, "image listed twice", place))
    else:
        raise UserError(f"{path} gives image id {image_id} to both {before} and {name}; give each image its own id")


def _add_caption(part: Annotations, annotation: Any, place: str) -> None:
    image_id = as_image_id(annotation.get("image_id")) if isinstance(annotation, dict) else None
    if image_id is None:
        part.skipped.append(Skipped(place, "annotation without a number as `image_id`"))
    elif image_id in part.names:
        part.captions[image_id] += captions_in(annotation.get("caption"), part.names[image_id], part.skipped, place)
    else:
        part.skipped.append(Skipped(f"image id {image_id}", "captions without an image", place))


def _join(part: Annotations, images: ImageFiles, split_of: SplitOf, splits: dict[str, list[Record]]) -> list[Skipped]:
    """Add the records of an annotation file to `splits`; return what could not be joined with an image."""
    found = images.find_all(part.names.values())
    refuse_wrong_folder(part.names.values(), found, images.folder)
    skipped = []
    for image_id, name in part.names.items():
        if name not in found:
            skipped.append(Skipped(name, "captions without an image"))
        elif not part.captions[image_id]:
            skipped.append(Skipped(name, "image without captions"))
        elif not split_of[name]:
            skipped.append(Skipped(name, "in no split"))
        else:
            record = Record(image_id, name, found[name], tuple(part.captions[image_id]))
            splits.setdefault(split_of[name], []).append(record)
    return skipped + images.without_captions(found.values())
