"""Mistakes in a folder of one's own: one line each, or skipped, counted and named. And what is told on the way."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import draw_photo
from PIL import Image

from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader

Command = Callable[..., Any]
Build = Callable[..., Any]


@pytest.fixture
def build(command: Command, tmp_path: Path) -> Build:
    """`imgcap build folder` into `tmp_path/set`."""

    def run(*arguments: object) -> Any:
        return command("imgcap", "build", "folder", *arguments, "--out", tmp_path / "set", "--workers", 1)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos, 0.jpg to 9.jpg."""
    for number in range(10):
        draw_photo(tmp_path / "photos" / f"{number}.jpg", seed=number)
    return tmp_path / "photos"


def captions(folder: Path, name: str = "captions.csv", header: str = "image,caption", tail: str = "") -> Path:
    rows = "".join(f"{number}.jpg,A photo of {number} .{tail}\n" for number in range(10))
    (folder / name).write_text(f"{header}\n{rows}")
    return folder / name


def empty(folder: Path) -> list[object]:
    shutil.rmtree(folder)
    folder.mkdir()
    return [folder]


def uncaptioned(folder: Path) -> list[object]:
    return [folder]


def silent(folder: Path) -> list[object]:
    for number in range(10):
        (folder / f"{number}.txt").write_text("\n")
    return [folder]


def no_image_column(folder: Path) -> list[object]:
    captions(folder, header="photograph,caption")
    return [folder]


def no_such_column(folder: Path) -> list[object]:
    captions(folder)
    return [folder, "--caption-column", "captoin"]


def column_without_files(folder: Path) -> list[object]:
    path = captions(folder, header="url,caption")
    path.write_text(path.read_text().replace(".jpg", "-x.jpg"))
    return [folder, "--image-column", "url"]


def missing_pictures(folder: Path) -> list[object]:
    (folder.parent / "others").mkdir()
    return [captions(folder), "--images", folder.parent / "others"]


def unknown_split(folder: Path) -> list[object]:
    captions(folder, header="image,caption,split", tail=",holdout")
    return [folder]


def two_splits(folder: Path) -> list[object]:
    path = captions(folder, header="image,caption,split", tail=",train")
    path.write_text(path.read_text() + "3.jpg,Again .,test\n")
    return [folder]


def two_layouts(folder: Path) -> list[object]:
    captions(folder)
    (folder / "3.txt").write_text("A photo .")
    return [folder]


def two_tables(folder: Path) -> list[object]:
    captions(folder)
    captions(folder, "more.csv")
    return [folder]


def wrong_layout(folder: Path) -> list[object]:
    captions(folder)
    return [folder, "--layout", "coco"]


def latin(folder: Path) -> list[object]:
    captions(folder).write_bytes("image,caption\n0.jpg,Ein Café .\n".encode("latin1"))
    return [folder / "captions.csv"]


def no_column_at_all(folder: Path) -> list[object]:
    captions(folder).write_text("0.jpg\n1.jpg\n")
    return [folder / "captions.csv"]


def broken_json(folder: Path) -> list[object]:
    (folder / "captions.json").write_text('{"images": [')
    return [folder / "captions.json"]


def no_coco(folder: Path) -> list[object]:
    (folder / "captions.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    return [folder]


def karpathy(folder: Path) -> list[object]:
    image = {"filename": "0.jpg", "split": "train", "sentences": [{"raw": "A dog ."}]}
    (folder / "dataset.json").write_text(json.dumps({"images": [image]}))
    return [folder]


def two_images(folder: Path) -> list[object]:
    for number in range(2, 10):
        (folder / f"{number}.jpg").unlink()
    (folder / "captions.csv").write_text("image,caption\n0.jpg,A dog .\n1.jpg,A cat .\n")
    return [folder]


def own_val(folder: Path) -> list[object]:
    path = captions(folder, header="image,caption,split", tail=",train")
    path.write_text(path.read_text().replace("3 .,train", "3 .,val"))
    return [folder, "--val", "0.1"]


def odd_separator(folder: Path) -> list[object]:
    captions(folder)
    return [folder, "--separator", "comm"]


def captions_option(folder: Path) -> list[object]:
    return [folder, "--captions", captions(folder)]


def two_metadata(folder: Path) -> list[object]:
    captions(folder, "metadata.csv", "file_name,text")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.jpg", "text": "A dog ."}\n')
    return [folder]


def damaged_parquet(folder: Path) -> list[object]:
    pytest.importorskip("pyarrow")
    (folder / "train.parquet").write_bytes(b"PAR1 and no more")
    return [folder]


MISTAKES = {
    empty: "holds nothing and no captions in a layout that is known; layouts are sidecar: a .txt or .caption",
    uncaptioned: "holds 10 pictures and no captions in a layout that is known; layouts are sidecar",
    silent: "was recognised as 10 .txt files beside pictures and holds no captions",
    no_image_column: "captions.csv has the columns photograph, caption, and it isn't clear which holds the image;",
    no_such_column: "captions.csv has no column 'captoin' (--caption-column); its columns are image, caption;",
    column_without_files: "none of the 10 captioned images lies in",
    missing_pictures: "others (the first is 0.jpg); give their folder with --images",
    unknown_split: "captions.csv line 2, column 'split', names the split 'holdout'; splits are train, training",
    two_splits: "captions.csv line 12 puts 3.jpg into test, a line before put it into another split",
    two_layouts: "has the layouts of sidecar (1 .txt files beside pictures) and of table (a table captions.csv)",
    two_tables: "holds several files of captions: captions.csv, more.csv; give the one to read in place of the folder",
    wrong_layout: "has not the layout coco (COCO JSON with images and annotations); layouts are sidecar",
    latin: "is not UTF-8: byte 0xe9 at offset 27, line 2; convert it, for example with `iconv -f LATIN1",
    no_column_at_all: "starts with '0.jpg', which is no known layout of captions",
    broken_json: "is not JSON: Expecting value at line 1",
    no_coco: "is no COCO caption file: it needs a list `annotations` with something in it, and holds the keys images",
    karpathy: "this one is Karpathy's: imgcap build karpathy reads it",
    two_images: "2 captioned images are too few to hold any out for val",
    own_val: "the data has a val split of its own (column split); leave out --val 0.1",
    odd_separator: "--separator 'comm' is none; give one character, or tab,",
    captions_option: "imgcap build folder ",
    two_metadata: "holds several metadata files; leave one of them",
    damaged_parquet: "train.parquet is no Parquet or Arrow table that can be read",
}


@pytest.mark.parametrize("make", MISTAKES, ids=lambda make: make.__name__)
def test_a_mistake_is_one_line(
    build: Build, photos: Path, tmp_path: Path, make: Callable[[Path], list[object]]
) -> None:
    ended = build(*make(photos))
    assert MISTAKES[make] in ended.mistake, ended.mistake
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_there_is_one_line(build: Build, tmp_path: Path) -> None:
    assert "there is no folder or table" in build(tmp_path / "nowhere").mistake
    assert "this source needs a folder" in build().mistake


def test_an_unreadable_folder_option_of_another_source_is_one_line(command: Command, photos: Path) -> None:
    ended = command("imgcap", "build", "flickr8k", photos, "--out", photos.parent / "set")
    assert "flickr8k takes no PATH and no --layout" in ended.mistake


def test_parquet_without_pyarrow_says_what_to_install(
    build: Build, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgcap.shards.sources import columnar

    (photos / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    columnar._arrow.cache_clear()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'imgcap[parquet]'" in build(photos).mistake
    monkeypatch.undo()
    columnar._arrow.cache_clear()


def test_pictures_that_are_missing_are_named_with_their_line_and_many_of_them_are_told(
    build: Build, photos: Path, tmp_path: Path
) -> None:
    captions(photos)
    (photos / "4.jpg").unlink()
    ended = build(photos)
    assert ended.returncode == 0
    assert "1 × captions without an image (the first: '4.jpg (captions.csv line 6)')" in ended.stdout
    assert "10.0% of what was found is left out: imgcap verify" in ended.stdout


def test_a_picture_that_lost_one_of_its_captions_is_not_left_out(build: Build, photos: Path) -> None:
    """Where half of the pictures lacked the second of two captions, half of what was found was said to be left out."""
    rows = "".join(f"{number}.jpg,A photo .,{'Of mine .' if number % 2 else ''}\n" for number in range(10))
    (photos / "captions.csv").write_text(f"image,caption_0,caption_1\n{rows}")
    ended = build(photos)
    assert ended.returncode == 0 and "25.0% of the captions are left out: imgcap verify" in ended.stdout
    assert "of what was found" not in ended.stdout


def test_a_column_that_is_not_used_and_names_splits_is_told(build: Build, photos: Path) -> None:
    header = "image,caption,Used for,by"
    path = captions(photos, header=header, tail=",train,me")
    path.write_text(path.read_text().replace("3 .,train", "3 .,dev").replace("7 .,train", "7 .,test"))
    told = "column 'Used for' is not used and names splits: --split-column 'Used for' takes them; column 'by' is not"
    assert told in build(photos).stdout
    assert "splits: column Used for" in build(photos, "--split-column", "Used for", "--force").stdout
    path.write_text(path.read_text().replace("5 .,train", "5 .,"))
    assert "column 'Used for' is not used; column 'by'" in build(photos, "--split-column", "none", "--force").stdout


@pytest.mark.parametrize("layout", ["imagefolder", "coco"])
def test_a_missing_picture_is_not_that_of_another_split(build: Build, tmp_path: Path, layout: str) -> None:
    """train/3.jpg was found by its last part in test/, which so had its caption, and lost its own."""
    for split in ("train", "val", "test"):
        for number in range(4):
            draw_photo(tmp_path / "photos" / split / f"{number}.jpg", seed=number)
        rows = [{"file_name": f"{number}.jpg", "text": f"{split} {number}"} for number in range(4)]
        if layout == "imagefolder":
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / "photos" / split / "metadata.jsonl").write_text(lines)
        else:
            keys = ("id", "image_id", "file_name", "caption")
            notes = [dict(zip(keys, (n, n, f"{split}/{n}.jpg", f"{split} {n}"), strict=True)) for n in range(4)]
            (tmp_path / "photos" / f"{split}.json").write_text(json.dumps({"images": notes, "annotations": notes}))
    (tmp_path / "photos/train/3.jpg").unlink()
    ended = build(tmp_path / "photos")
    assert ended.returncode == 0 and "1 × captions without an image" in ended.stdout, ended.stderr
    reader = ShardReader(tmp_path / "set", "test")
    samples = [reader.read_text(place) for place in range(len(reader))]
    assert {sample.file_name: sample.captions for sample in samples} == {
        f"test/{number}.jpg": [f"test {number}"] for number in range(4)
    }


def test_pictures_that_are_called_as_columns_are(build: Build, photos: Path, tmp_path: Path) -> None:
    """With an image.jpg in the folder, the header `image,caption` was a row: `caption` was a caption of it."""
    (photos / "0.jpg").rename(photos / "image.jpg")
    path = captions(photos)
    path.write_text(path.read_text().replace("0.jpg", "image.jpg"))
    assert build(photos).returncode == 0
    assert sum(info.captions for info in Manifest.load(tmp_path / "set").splits.values()) == 10
    path.write_text(path.read_text().replace("image,caption", "image,beschreibung"))
    assert "it isn't clear which hold captions; name them" in build(photos, "--force").mistake


def test_lists_without_suffixes_are_of_any_pictures(build: Build, photos: Path, tmp_path: Path) -> None:
    for path in photos.glob("*.jpg"):
        path.rename(path.with_suffix(".png"))
    path = captions(photos)
    path.write_text(path.read_text().replace(".jpg", ".png"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("0\n1\n2\n3\n4\n5\n6\n")
    (tmp_path / "lists/val.txt").write_text("7\n8\n9\n")
    assert build(photos, "--splits", tmp_path / "lists").returncode == 0
    assert [info.images for info in Manifest.load(tmp_path / "set").splits.values()] == [7, 3]


def test_a_picture_may_be_called_0(build: Build, photos: Path, tmp_path: Path) -> None:
    rows = [{"image": number, "caption": f"A photo of {number} ."} for number in range(10)]
    (photos / "captions.json").write_text(json.dumps(rows))
    assert build(photos).returncode == 0
    assert sum(info.images for info in Manifest.load(tmp_path / "set").splits.values()) == 10


def test_a_set_without_val_is_told_when_it_is_built_and_refused_early_by_training(
    build: Build, command: Command, photos: Path, tiny: list[str], tmp_path: Path
) -> None:
    path = captions(photos, header="image,caption,split", tail=",train")
    path.write_text(path.read_text().replace("9 .,train", "9 .,test"))
    ended = build(photos)
    assert "there is no val split, and training needs one: build with --val 0.1" in ended.stdout
    arguments = ["--config", "/dev/null", *tiny, f"data.shards={tmp_path / 'set'}", f"run_dir={tmp_path / 'run'}"]
    trained = command("launch/train.py", *arguments, "model.encoder.weights=/nowhere")
    assert "has no split 'val', which training is evaluated on" in trained.mistake and "--val 0.1" in trained.mistake
    assert build(photos, "--val", "0.2", "--force").returncode == 0
    manifest = Manifest.load(tmp_path / "set")
    assert {split: info.images for split, info in manifest.splits.items()} == {"train": 7, "val": 2, "test": 1}
    assert command("launch/train.py", *arguments).returncode == 0


def test_all_of_it_called_train_is_cut_by_a_seed_and_says_so(build: Build, photos: Path, tmp_path: Path) -> None:
    captions(photos, header="image,caption,split", tail=",train")
    ended = build(photos)
    assert "all of it is called train by the column split, so that a seed cuts it" in ended.stdout
    assert "splits: by image, seed 0, 10% val, 10% test" in ended.stdout
    assert {split: info.images for split, info in Manifest.load(tmp_path / "set").splits.items()} == {
        "train": 8,
        "val": 1,
        "test": 1,
    }


def test_copies_of_a_picture_come_into_one_split(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(40):
        path = draw_photo(folder / f"{number}.jpg", seed=number // 4)
        path.with_suffix(".txt").write_text(f"A photo of number {number} .")
    assert build(folder, "--val", "0.3", "--test", "0.3").returncode == 0
    bytes_of = {}
    for split in ("train", "val", "test"):
        reader = ShardReader(tmp_path / "set", split)
        bytes_of[split] = {reader.read(i).jpeg for i in range(len(reader))}
        assert bytes_of[split]
    assert sum(map(len, bytes_of.values())) == len(set().union(*bytes_of.values())) == 10


def test_a_split_column_is_used_where_a_dataset_s_table_has_one(command: Command, photos: Path, tmp_path: Path) -> None:
    """Commit af5af11 cut such a table by a seed without a word."""
    path = captions(photos, header="image,caption,split,licence", tail=",train,CC0")
    path.write_text(path.read_text().replace("3 .,train", "3 .,validation").replace("7 .,train", "7 .,test"))
    arguments = ["--images", photos, "--captions", path, "--out", tmp_path / "set", "--workers", 1]
    for name in ("flickr8k", "flickr30k"):
        ended = command("imgcap", "build", name, *arguments, "--force")
        assert ended.returncode == 0 and "column 'licence' of captions.csv is not used" in ended.stdout
        assert "splits: column split of captions.csv" in ended.stdout
        assert [ShardReader(tmp_path / "set", split).read(0).file_name for split in ("val", "test")] == [
            "3.jpg",
            "7.jpg",
        ]


def test_a_split_of_coco_s_images_is_used(command: Command, photos: Path, tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "split": "restval" if n else "dev"} for n in range(10)]
    annotations = [{"id": n, "image_id": n, "caption": f"A photo of {n} ."} for n in range(10)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    arguments = ["--images", photos, "--captions", tmp_path / "captions.json", "--out", tmp_path / "set"]
    assert command("imgcap", "build", "coco", *arguments, "--workers", 1).returncode == 0
    assert {split: info.images for split, info in Manifest.load(tmp_path / "set").splits.items()} == {
        "train": 9,
        "val": 1,
    }


@pytest.mark.parametrize(("form", "suffix"), [("HEIF", "HEIC"), ("AVIF", "avif"), ("JPEG", "jfif")])
def test_pictures_of_phones_are_built(build: Build, tmp_path: Path, form: str, suffix: str) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    drawn = {}
    for number in range(3):
        jpeg = draw_photo(tmp_path / "photos" / f"{number}.jpg", 64, 48, seed=number)
        with Image.open(jpeg) as picture:
            picture.save(jpeg.with_suffix(f".{suffix}"), form, quality=95)
            drawn[f"{number}.{suffix}"] = np.asarray(picture, dtype=float)
        jpeg.unlink()
        jpeg.with_suffix(".txt").write_text(f"A photo of {number} .")
    (tmp_path / "photos" / "drawing.svg").write_text("<svg/>")
    ended = build(tmp_path / "photos")
    assert ended.returncode == 0 and "left out, of a sort that isn't read: 1 × .svg" in ended.stdout
    for split in ("train", "val", "test"):
        sample = ShardReader(tmp_path / "set", split).read(0)
        built = np.asarray(Image.open(io.BytesIO(sample.jpeg)), dtype=float)
        assert np.abs(built - drawn[sample.file_name]).mean() < 6


def test_heic_without_its_package_says_what_to_install(
    build: Build, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgcap.pictures import opening

    (photos / "10.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    for path in list(photos.iterdir()):
        path.with_suffix(".txt").write_text("A photo .")
    opening._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    ended = build(photos)
    opening._register_heif.cache_clear()
    assert "1 × a HEIC picture, which needs one more package: pip install pillow-heif (the first: '10.heic')" in (
        ended.stdout
    )
