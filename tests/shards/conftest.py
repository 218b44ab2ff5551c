"""Small datasets, drawn and written for each test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from photos import draw_photo

from imgcap.shards.source import Source, image_id_of
from imgcap.types import Record


class Words:
    """A tokeniser that needs no library."""

    name = "split on white space"

    def __call__(self, caption: str) -> list[str]:
        return caption.lower().split()


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def small_source(tmp_path: Path) -> Source:
    """Twelve photos to train with and four to validate, two captions each."""
    splits: dict[str, list[Record]] = {}
    for split, names in {"train": range(12), "val": range(12, 16)}.items():
        for number in names:
            name = f"photo.{number}.jpg"  # a dot too many: a KEY of this name would merge with its neighbours
            path = draw_photo(tmp_path / "photos" / name, seed=number)
            captions = (f"A scene of number {number} .", "a scene , drawn")
            splits.setdefault(split, []).append(Record(image_id_of(name), name, path, captions))
    return Source("small", splits, [])


@pytest.fixture
def flickr_folder(tmp_path: Path) -> Path:
    """Twenty photos, `captions.txt` and Flickr8k's lists, of which the one for test is missing."""
    root = tmp_path / "flickr"
    names = [f"{1000 + i}_{i:04x}.jpg" for i in range(20)]
    rows = ["image,caption"]
    for i, name in enumerate(names):
        draw_photo(root / "Images" / name, seed=i)
        rows += [f"{name},A dog runs over field {i} .", f'{name},"Dogs, two of them, play ."']
    (root / "captions.txt").write_text("\n".join(rows) + "\n")
    (root / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:14]) + "\n")
    (root / "Flickr_8k.devImages.txt").write_text("\n".join(names[14:]) + "\n")
    return root


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """COCO's layout for 2017: ten images to train with, four to validate."""
    root = tmp_path / "coco"
    for split, ids in {"train": range(100, 110), "val": range(200, 204)}.items():
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids]
        captions = [{"id": 10 * i + j, "image_id": i, "caption": f"Caption {j} of {i}."} for j in (0, 1) for i in ids]
        for image in images:
            draw_photo(root / f"{split}2017" / str(image["file_name"]), seed=int(str(image["id"])))
        write_json(root / "annotations" / f"captions_{split}2017.json", {"images": images, "annotations": captions})
    return root


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def json_file() -> Callable[[Path, object], Path]:
    return write_json
