"""Pictures of the same name or of the same bytes, and names written in part: each gets its own captions and split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import draw_photo

from imgcap.errors import UserError
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source
from imgcap.shards.sources.registry import SourceOptions, read_source
from imgcap.shards.sources.splits import Shares, read_splits

pyarrow = pytest.importorskip("pyarrow")

JsonFile = Callable[[Path, object], Path]
Command = Callable[..., Any]


def captions_of(source: Source) -> dict[str, list[str]]:
    """The first captions of each split's pictures."""
    return {split: sorted(record.captions[0] for record in records) for split, records in source.splits.items()}


def own(path: Path, **options: Any) -> Source:
    return read_source("folder", SourceOptions(path=path, **options))


def sidecars(folder: Path, names: list[str], first_seed: int = 0) -> None:
    for number, name in enumerate(names):
        draw_photo(folder / name, seed=first_seed + number)
        (folder / name).with_suffix(".txt").write_text(f"Photo {name}.")


@pytest.mark.parametrize("folders", [("train", "validation", "test"), ("a", "b", "c", "d/a")])
def test_tables_of_one_name_hold_other_pictures_of_one_name(
    command: Command, tmp_path: Path, folders: tuple[str, ...]
) -> None:
    """As `save_to_disk` writes them: each split's file has the same name, and pictures are called 0.jpg in each."""
    bytes_of = {}
    for number, folder in enumerate(folders):
        rows = []
        for picture in range(3):
            drawn = draw_photo(tmp_path / "drawn" / f"{number}{picture}.jpg", seed=10 * number + picture)
            caption = f"Picture {picture} of {folder}."
            bytes_of[caption] = drawn.read_bytes()
            rows.append({"image": {"bytes": bytes_of[caption], "path": f"{picture}.jpg"}, "caption": [caption]})
        table = pyarrow.Table.from_pylist(rows)
        (tmp_path / "hub" / folder).mkdir(parents=True)
        with pyarrow.ipc.new_stream(tmp_path / "hub" / folder / "data-00000-of-00001.arrow", table.schema) as stream:
            stream.write_table(table)
    ended = command("imgcap", "build", "folder", tmp_path / "hub", "--out", tmp_path / "set", "--workers", 1)
    assert ended.returncode == 0 and "skipped" not in ended.stdout, ended
    found = {}
    for split in json.loads((tmp_path / "set/manifest.json").read_text())["splits"]:
        reader = ShardReader(tmp_path / "set", split)
        for sample in (reader.read(i) for i in range(len(reader))):
            (caption,) = sample.captions
            found[caption] = sample.jpeg
            assert len(folders) != 3 or caption.endswith(f" of {'validation' if split == 'val' else split}.")
    assert found == bytes_of


def test_coco_files_of_two_splits_may_have_names_in_common(tmp_path: Path, json_file: JsonFile) -> None:
    for split, first in (("train", 0), ("val", 100)):
        images = [{"id": first + number, "file_name": f"{number}.jpg"} for number in range(6 if first == 0 else 3)]
        for image in images:
            draw_photo(tmp_path / f"{split}2017" / str(image["file_name"]), seed=int(str(image["id"])))
        annotations = [{"image_id": image["id"], "caption": f"One of {split}."} for image in images]
        json_file(tmp_path / f"captions_{split}2017.json", {"images": images, "annotations": annotations})
    files = tuple(sorted(tmp_path.glob("*.json")))
    source = read_source("coco", SourceOptions(images=tmp_path, captions=files))
    assert captions_of(source) == {"train": ["One of train."] * 6, "val": ["One of val."] * 3}


def test_an_empty_cell_is_in_no_split_where_others_name_train(tmp_path: Path) -> None:
    rows = ["image,caption,split"]
    for number in range(10):
        draw_photo(tmp_path / f"{number}.jpg", seed=number)
        rows.append(f"{number}.jpg,Photo {number}.,{'train' if number < 6 else ''}")
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    source = own(tmp_path)
    assert sorted(text for texts in captions_of(source).values() for text in texts) == [
        f"Photo {number}." for number in range(6)
    ]
    assert set(source.splits) == {"train", "val", "test"}
    assert [(item.file_name, item.reason) for item in source.skipped] == [
        (f"{number}.jpg", "in no split") for number in range(6, 10)
    ]


def test_what_is_held_out_of_train_has_no_copy_there(tmp_path: Path) -> None:
    names = [f"{number}{copy}.jpg" for number in range(20) for copy in "ab"]
    sidecars(tmp_path / "train", names)
    for number in range(20):
        (tmp_path / "train" / f"{number}b.jpg").write_bytes((tmp_path / "train" / f"{number}a.jpg").read_bytes())
    sidecars(tmp_path / "test", ["c.jpg"], 100)
    source = own(tmp_path, shares=Shares(val=0.1))
    pictures = {split: {record.read() for record in records} for split, records in source.splits.items()}
    assert not pictures["train"] & pictures["val"]
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 36, "val": 4, "test": 1}


@pytest.mark.parametrize(
    "names, train, val",
    [
        (["a.0.jpg", "a.1.jpg", "a.2.jpg"], "a.0\na.1", "a.2"),
        (["sub/0.png", "sub/1.png", "sub/2.jpg"], "sub/0\n1", "2"),
        (["sub/0.png", "sub/1.jpeg", "2.jpg"], "0.png\nsub/1.jpeg", "2.jpg"),
    ],
    ids=["a dot in the name", "folders and other suffixes", "with suffix"],
)
def test_lists_name_pictures_with_or_without_folder_and_suffix(
    tmp_path: Path, names: list[str], train: str, val: str
) -> None:
    sidecars(tmp_path / "photos", names)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text(train)
    (tmp_path / "lists/val.txt").write_text(val)
    source = own(tmp_path / "photos", splits=tmp_path / "lists")
    assert captions_of(source) == {
        "train": [f"Photo {name}." for name in names[:2]],
        "val": [f"Photo {name}." for name in names[2:]],
    }
    assert source.skipped == []


@pytest.mark.parametrize("first, second", [("1.jpg", "1"), ("1", "1.jpg")])
def test_a_name_with_and_without_suffix_is_in_two_lists(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "test.txt").write_text(first)
    (tmp_path / "train.txt").write_text(second)
    with pytest.raises(UserError, match=r"1\.jpg is in t\w+\.txt, and 1 in t\w+\.txt; take it out of one"):
        read_splits(tmp_path)
