"""COCO captions (Chen et al., 2015): `captions_{train,val}20{14,17}.json` and the folders of the same names.

`train` and `val` are the dataset's own. A train file alone, or one of another name, is cut by a seed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.source import Skipped, Source
from imgcap.shards.sources.image_folder import in_order, list_images, refuse_wrong_folder, without_captions
from imgcap.shards.sources.splits import seeded_rule, seeded_splits
from imgcap.shards.sources.text_file import cleaned, read_json
from imgcap.types import Record

_FILE_NAME = re.compile(r"^captions_(?P<split>train|val)(?P<year>2014|2017)\.json$")


@dataclass
class _Annotations:
    """The content of an annotation file: captions and file names by image id, and where its images lie."""

    split: str  # empty: none of its own
    folder: Path
    names: dict[int, str] = field(default_factory=dict)
    captions: dict[int, list[str]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def read(images: Path, captions: Sequence[Path], seed: int = 0) -> Source:
    """Read COCO. `captions` are files, or one folder of them; `images` holds train2017/ and the like, or the files.

    Raises `UserError` for files that are no COCO captions, or of two years.
    """
    files = _annotation_files(captions)
    parts = [_read_file(path, images) for path in files]
    if {part.split for part in parts} & {"", "train"} and len(parts) == 1:
        (part,) = parts
        split_of, rule = seeded_splits(part.names.values(), seed), seeded_rule(seed)
    else:
        split_of = {name: part.split for part in parts for name in part.names.values()}
        rule = "standard"
    splits: dict[str, list[Record]] = {}
    skipped: list[Skipped] = []
    for part in parts:
        skipped += part.skipped + _join(part, split_of, splits)
    return Source("coco", in_order(splits), skipped, origin=", ".join(path.name for path in files), split_rule=rule)


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


def _read_file(path: Path, images: Path) -> _Annotations:
    content, match = read_json(path), _FILE_NAME.match(path.name)
    folder = images / (match["split"] + match["year"]) if match else images
    part = _Annotations(match["split"] if match else "", folder if folder.is_dir() else images)
    try:
        for image in content["images"]:
            _add_image(part, image, path)
        for annotation in content["annotations"]:
            _add_caption(part, annotation)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is no COCO caption file: {error!r}; it needs `images` with `id` and `file_name`, "
            "and `annotations` with `image_id` and `caption`"
        ) from None
    return part


def _add_image(part: _Annotations, image: Any, path: Path) -> None:
    image_id, name = int(image["id"]), str(image["file_name"])
    before = part.names.get(image_id)
    if before is None:
        part.names[image_id], part.captions[image_id] = name, []
    elif before == name:
        part.skipped.append(Skipped(name, "image listed twice"))
    else:
        raise UserError(f"{path} gives image id {image_id} to both {before} and {name}; give each image its own id")


def _add_caption(part: _Annotations, annotation: Any) -> None:
    image_id, caption = int(annotation["image_id"]), cleaned(annotation["caption"])
    if image_id not in part.names:
        part.skipped.append(Skipped(f"image id {image_id}", "captions without an image"))
    elif caption:
        part.captions[image_id].append(caption)
    else:
        part.skipped.append(Skipped(part.names[image_id], "empty caption"))


def _join(part: _Annotations, split_of: dict[str, str], splits: dict[str, list[Record]]) -> list[Skipped]:
    """Add the records of an annotation file to `splits`; return what could not be joined with an image."""
    present = list_images(part.folder)
    refuse_wrong_folder(part.names.values(), present, part.folder)
    skipped = []
    for image_id, name in part.names.items():
        if name not in present:
            skipped.append(Skipped(name, "captions without an image"))
        elif not part.captions[image_id]:
            skipped.append(Skipped(name, "image without captions"))
        else:
            record = Record(image_id, name, part.folder / name, tuple(part.captions[image_id]))
            splits.setdefault(split_of[name], []).append(record)
    return skipped + without_captions(present, set(part.names.values()))
