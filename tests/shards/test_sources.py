"""Datasets as they are handed round, whole and damaged."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgcap.errors import UserError
from imgcap.shards.builder import build
from imgcap.shards.source import Skipped, Source
from imgcap.shards.sources.registry import SourceOptions, read_source
from imgcap.text.tokeniser import Tokeniser

JsonFile = Callable[[Path, object], Path]


def flickr_options(folder: Path, **others: object) -> SourceOptions:
    return replace(SourceOptions(images=folder / "Images", captions=(folder / "captions.txt",)), **others)


def coco_options(folder: Path, **others: object) -> SourceOptions:
    return replace(SourceOptions(images=folder, captions=(folder / "annotations",)), **others)


def ids(source: Source) -> dict[str, list[int]]:
    return {split: [record.image_id for record in records] for split, records in source.splits.items()}


def test_flickr8k_takes_the_lists_beside_its_captions(flickr_folder: Path) -> None:
    source = read_source("flickr8k", flickr_options(flickr_folder))
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 14, "val": 6}
    assert source.skipped == []
    record = source.splits["val"][0]
    assert record.captions == ("A dog runs over field 14 .", "Dogs, two of them, play .")
    assert record.path.is_file()


def test_a_limit_keeps_ids_and_places(flickr_folder: Path) -> None:
    whole = ids(read_source("flickr8k", flickr_options(flickr_folder)))
    limited = ids(read_source("flickr8k", flickr_options(flickr_folder, limit=5)))
    assert limited == {split: places[:5] for split, places in whole.items()}


def test_flickr30k_without_lists_is_cut_by_image(flickr_folder: Path) -> None:
    for path in flickr_folder.glob("Flickr_8k*"):
        path.unlink()
    source = read_source("flickr30k", flickr_options(flickr_folder, seed=1))
    placed = [image_id for places in ids(source).values() for image_id in places]
    assert sorted(source.splits) == ["test", "train", "val"]
    assert len(placed) == len(set(placed)) == 20
    assert "seed 1" in source.split_rule


def test_flickr_names_what_does_not_fit_together(flickr_folder: Path, photo: Callable[..., Path]) -> None:
    photo(flickr_folder / "Images" / "lonely.jpg")
    (flickr_folder / "Images" / "1000_0000.jpg").unlink()
    with open(flickr_folder / "captions.txt", "a") as file:
        file.write("1001_0001.jpg,\nghost.jpg,A ghost .\n")
    with open(flickr_folder / "Flickr_8k.trainImages.txt", "a") as file:
        file.write("listed.jpg\n")
    (flickr_folder / "Flickr_8k.devImages.txt").write_text("1014_000e.jpg\n")
    source = read_source("flickr8k", flickr_options(flickr_folder))
    assert set(source.skipped) == {
        Skipped("1001_0001.jpg", "empty caption"),
        Skipped("1000_0000.jpg", "captions without an image"),
        Skipped("ghost.jpg", "captions without an image"),
        Skipped("lonely.jpg", "image without captions"),
        Skipped("listed.jpg", "listed in a split, without captions"),
        *(Skipped(f"{1000 + i}_{i:04x}.jpg", "in no split list") for i in range(15, 20)),
    }
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 13, "val": 1}


def test_coco_keeps_its_ids_and_splits(coco_folder: Path) -> None:
    source = read_source("coco", coco_options(coco_folder))
    assert ids(source) == {"train": list(range(100, 110)), "val": list(range(200, 204))}
    assert source.splits["val"][0].captions == ("Caption 0 of 200.", "Caption 1 of 200.")
    assert source.skipped == []


def test_a_coco_train_file_alone_is_cut_and_a_val_file_alone_is_val(coco_folder: Path) -> None:
    annotations = coco_folder / "annotations"
    alone = coco_options(coco_folder, captions=(annotations / "captions_train2017.json",))
    source = read_source("coco", alone)
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 8, "val": 1, "test": 1}
    assert ids(read_source("coco", replace(alone, seed=0))) == ids(source)
    only_val = coco_options(coco_folder, captions=(annotations / "captions_val2017.json",))
    assert ids(read_source("coco", only_val)) == {"val": list(range(200, 204))}


def test_coco_duplicates(coco_folder: Path, json_file: JsonFile) -> None:
    path = coco_folder / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": 100, "file_name": "000000000100.jpg"})
    content["annotations"].append({"id": 1, "image_id": 999, "caption": "Nobody's."})
    json_file(path, content)
    source = read_source("coco", coco_options(coco_folder))
    assert source.skipped == [
        Skipped("000000000100.jpg", "image listed twice"),
        Skipped("image id 999", "captions without an image"),
    ]
    content["images"].append({"id": 100, "file_name": "000000000101.jpg"})
    json_file(path, content)
    with pytest.raises(UserError, match=r"image id 100 to both 000000000100\.jpg and 000000000101\.jpg"):
        read_source("coco", coco_options(coco_folder))


def test_two_years_of_coco_are_refused(coco_folder: Path, json_file: JsonFile) -> None:
    json_file(coco_folder / "annotations" / "captions_val2014.json", {"images": [], "annotations": []})
    with pytest.raises(UserError, match="two years"):
        read_source("coco", coco_options(coco_folder))


def karpathy_image(name: str, split: str, **others: object) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": f" {name} ."}, {"raw": ""}], **others}


def test_karpathy_coco_finds_subfolders_and_joins_restval(coco_folder: Path, json_file: JsonFile) -> None:
    images = [
        karpathy_image("000000000100.jpg", "train", filepath="train2017", cocoid=100),
        karpathy_image("000000000200.jpg", "restval", filepath="val2017", cocoid=200),
        karpathy_image("000000000201.jpg", "test", filepath="val2017", cocoid=201),
    ]
    path = json_file(coco_folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    source = read_source("karpathy", SourceOptions(images=coco_folder, captions=(path,)))
    assert source.name == "coco"
    assert ids(source) == {"train": [100, 200], "test": [201]}
    assert source.splits["test"][0].captions == ("000000000201.jpg .",)
    reasons = [item.reason for item in source.skipped]
    assert reasons.count("empty caption") == 3
    assert reasons.count("image without captions") == 11  # the other photos of both folders


def test_karpathy_names_a_file_that_is_missing(flickr_folder: Path, json_file: JsonFile) -> None:
    images = [karpathy_image("1000_0000.jpg", "train"), karpathy_image("ghost.jpg", "train")]
    path = json_file(flickr_folder / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})
    source = read_source("karpathy", SourceOptions(images=flickr_folder / "Images", captions=(path,)))
    assert [record.file_name for record in source.splits["train"]] == ["1000_0000.jpg"]
    assert Skipped("ghost.jpg", "captions without an image") in source.skipped


def test_two_images_of_one_name_in_two_folders_need_ids(coco_folder: Path, json_file: JsonFile, tmp_path: Path) -> None:
    shutil.copy(coco_folder / "train2017" / "000000000100.jpg", coco_folder / "val2017")

    def read(with_ids: bool) -> Source:
        images = [
            karpathy_image("000000000100.jpg", "train", filepath=folder, **({"cocoid": cocoid} if with_ids else {}))
            for folder, cocoid in {"train2017": 1, "val2017": 2}.items()
        ]
        path = json_file(coco_folder / "dataset.json", {"images": images, "dataset": "two"})
        return read_source("karpathy", SourceOptions(images=coco_folder, captions=(path,)))

    assert len({record.path for record in read(with_ids=True).splits["train"]}) == 2
    with pytest.raises(
        UserError, match=r"000000000100\.jpg \(train\) and 000000000100\.jpg \(train\); give each image one"
    ):
        build(read(with_ids=False), tmp_path / "set", Tokeniser("en"))


def test_karpathy_flickr8k_gives_the_ids_of_the_caption_table(flickr_folder: Path, json_file: JsonFile) -> None:
    images = [karpathy_image("1000_0000.jpg", "train"), karpathy_image("1014_000e.jpg", "val")]
    path = json_file(flickr_folder / "dataset_flickr8k.json", {"images": images, "dataset": "flickr8k"})
    by_karpathy = read_source("karpathy", SourceOptions(images=flickr_folder / "Images", captions=(path,)))
    by_table = read_source("flickr8k", flickr_options(flickr_folder))
    for split in ("train", "val"):
        assert ids(by_karpathy)[split][0] == ids(by_table)[split][0]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flickr9k", {}, "no source 'flickr9k'"),
        ("flickr8k", {"images": None}, "needs the folder of its images"),
        ("flickr8k", {"captions": ()}, "needs its captions"),
        ("flickr8k", {"captions": (Path("nowhere.txt"),)}, r"there is no nowhere\.txt"),
        ("flickr8k", {"images": Path("nowhere")}, "there is no folder nowhere"),
        ("flickr8k", {"captions": (Path(), Path())}, "reads one file"),
        ("coco", {"splits": Path()}, "has its own splits"),
        ("demo", {}, "leave out --images"),
    ],
)
def test_wrong_options_are_named(flickr_folder: Path, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_source(name, flickr_options(flickr_folder, **options))


def test_pictures_are_found_beneath_the_folder_that_is_given(flickr_folder: Path, tmp_path: Path) -> None:
    source = read_source("flickr8k", flickr_options(flickr_folder))
    beneath = read_source("flickr8k", flickr_options(flickr_folder, images=flickr_folder))
    told = f"20 pictures found by the last part of their name alone, in {flickr_folder}"
    assert beneath == dataclasses.replace(source, notes=(told,))
    (tmp_path / "others").mkdir()
    with pytest.raises(UserError, match=r"none of the 20 captioned images lies in .*others .*1000_0000\.jpg"):
        read_source("flickr8k", flickr_options(flickr_folder, images=tmp_path / "others"))


def test_files_that_are_no_annotations(tmp_path: Path, flickr_folder: Path, json_file: JsonFile) -> None:
    strange = json_file(tmp_path / "captions_val2017.json", {"images": [{"id": 1}], "annotations": []})
    for name in ("coco", "karpathy"):
        with pytest.raises(UserError, match="is no"):
            read_source(name, SourceOptions(images=flickr_folder, captions=(strange,)))
    strange.write_text('{"images": [')
    with pytest.raises(UserError, match=r"is not JSON: .* line 1, column 13"):
        read_source("coco", SourceOptions(images=flickr_folder, captions=(strange,)))
    with pytest.raises(UserError, match="holds no captions_"):
        read_source("coco", SourceOptions(images=flickr_folder, captions=(flickr_folder,)))


def test_both_files_of_the_real_flickr8k_say_the_same(real_data: Path) -> None:
    folder = real_data / "flickr8k"
    options = flickr_options(folder)
    by_csv = read_source("flickr8k", options)
    by_token = read_source("flickr8k", replace(options, captions=(folder / "Flickr8k.token.txt",)))
    assert by_csv.splits == by_token.splits
    assert {split: len(records) for split, records in by_csv.splits.items()} == {"train": 6000, "val": 1000}
    assert by_csv.skipped == by_token.skipped == []


def test_captions_that_are_no_text_are_skipped_and_the_file_is_read(coco_folder: Path, json_file: JsonFile) -> None:
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (100, 101, 102)]
    annotations = [
        {"image_id": i, "caption": caption} for i, caption in zip((100, 101, 102), ("A dog.", None, 7), strict=True)
    ]
    path = json_file(coco_folder / "own.json", {"images": images, "annotations": annotations})
    source = read_source("coco", SourceOptions(images=coco_folder / "train2017", captions=(path,)))
    assert [record.captions for records in source.splits.values() for record in records] == [("A dog.",)]
    reasons = {item.file_name: item.reason for item in source.skipped if item.reason != "image without captions"}
    assert reasons == {"000000000101.jpg": "empty caption", "000000000102.jpg": "caption that is no text"}


def test_karpathy_takes_tokens_where_the_sentence_itself_lacks(coco_folder: Path, json_file: JsonFile) -> None:
    sentences = [{"raw": "A dog .", "tokens": ["a", "dog"]}, {"raw": None, "tokens": ["a", "cat"]}, {"tokens": ["a"]}]
    images = [{"filename": "000000000100.jpg", "split": "train", "sentences": [*sentences, {}]}]
    path = json_file(coco_folder / "dataset.json", {"images": images})
    source = read_source("karpathy", SourceOptions(images=coco_folder / "train2017", captions=(path,)))
    assert source.splits["train"][0].captions == ("A dog .", "a cat", "a")
    assert Skipped("000000000100.jpg", "empty caption") in source.skipped


@pytest.mark.parametrize("written", ["train2017/{}", "images\\{}", "/home/somebody/{}", "./{}"])
def test_pictures_are_found_however_their_folder_is_written(
    coco_folder: Path, json_file: JsonFile, written: str
) -> None:
    images = [{"id": i, "file_name": written.format(f"{i:012d}.jpg")} for i in (100, 101, 102)]
    annotations = [{"image_id": i, "caption": "A dog."} for i in (100, 101, 102)]
    path = json_file(coco_folder / "own.json", {"images": images, "annotations": annotations})
    source = read_source("coco", SourceOptions(images=coco_folder / "train2017", captions=(path,)))
    found = {record.image_id: record.path for records in source.splits.values() for record in records}
    assert found == {i: coco_folder / "train2017" / f"{i:012d}.jpg" for i in (100, 101, 102)}


def test_a_name_that_could_be_two_pictures_is_none(coco_folder: Path, json_file: JsonFile) -> None:
    shutil.copy(coco_folder / "train2017" / "000000000100.jpg", coco_folder / "val2017")
    images = [{"id": i, "file_name": f"elsewhere/{i:012d}.jpg"} for i in (100, 101)]
    annotations = [{"image_id": i, "caption": "A dog."} for i in (100, 101)]
    path = json_file(coco_folder / "own.json", {"images": images, "annotations": annotations})
    source = read_source("coco", SourceOptions(images=coco_folder, captions=(path,)))
    assert [record.image_id for records in source.splits.values() for record in records] == [101]
    assert Skipped("elsewhere/000000000100.jpg", "captions without an image") in source.skipped


def test_coco_entries_that_cannot_be_used_are_skipped_with_their_place(coco_folder: Path, json_file: JsonFile) -> None:
    images = [{"id": 100, "file_name": "000000000100.jpg"}, None, {"id": None, "file_name": "000000000101.jpg"}]
    images += [
        {"id": 102},
        {"id": True, "file_name": "000000000103.jpg"},
        {"id": "104", "file_name": "000000000104.jpg"},
    ]
    said = [(100, "A dog."), (1e999, "A cat."), (104, "A bird."), (101, "A fox."), (100, "x " * 600_000)]
    annotations = [{"image_id": image_id, "caption": caption} for image_id, caption in said]
    path = json_file(coco_folder / "own.json", {"images": images, "annotations": [*annotations, 7, {"image_id": 100}]})
    source = read_source("coco", SourceOptions(images=coco_folder / "train2017", captions=(path,)))
    found = {record.image_id: record.captions for records in source.splits.values() for record in records}
    assert found == {100: ("A dog.",), 104: ("A bird.",)}
    told = [(skipped.told, skipped.reason) for skipped in source.skipped if skipped.reason != "image without captions"]
    assert told == [
        ("own.json image 2", "image without a `file_name`"),
        ("000000000101.jpg (own.json image 3)", "image without a number as `id`"),
        ("own.json image 4", "image without a `file_name`"),
        ("000000000103.jpg (own.json image 5)", "image without a number as `id`"),
        ("own.json annotation 2", "annotation without a number as `image_id`"),
        ("image id 101 (own.json annotation 4)", "captions without an image"),
        ("000000000100.jpg (own.json annotation 5)", "caption of more than 20,000 letters"),
        ("own.json annotation 6", "annotation without a number as `image_id`"),
        ("000000000100.jpg (own.json annotation 7)", "empty caption"),
    ]


def test_karpathy_entries_that_cannot_be_used_are_skipped_with_their_place(
    coco_folder: Path, json_file: JsonFile
) -> None:
    names = [f"{i:012d}.jpg" for i in range(100, 106)]
    images: list[Any] = [karpathy_image(names[0], "train"), None, karpathy_image(names[1], "train", cocoid=1.5)]
    images += [karpathy_image(names[2], ""), {"filename": names[3], "split": "train", "sentences": None}]
    images += [{"filename": names[4], "split": "val", "sentences": ["A dog .", {"tokens": ["a", None]}]}]
    path = json_file(coco_folder / "dataset.json", {"images": images})
    source = read_source("karpathy", SourceOptions(images=coco_folder / "train2017", captions=(path,)))
    assert [record.file_name for records in source.splits.values() for record in records] == [names[0], names[4]]
    told = {skipped.told: skipped.reason for skipped in source.skipped if skipped.place or "image 2" in skipped.told}
    assert told == {
        f"{names[0]} (dataset.json image 1)": "empty caption",
        "dataset.json image 2": "image without a `filename`",
        f"{names[1]} (dataset.json image 3)": "image without a number as `cocoid`",
        f"{names[2]} (dataset.json image 4)": "in no split",
        f"{names[3]} (dataset.json image 5)": "image without captions",
        f"{names[4]} (dataset.json image 6)": "empty caption",
    }


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "coco",
            {"images": None, "annotations": []},
            "a list `images` with something in it, and holds the keys images",
        ),
        ("coco", [], "a list `images` with something in it, and holds no object"),
        (
            "coco",
            {"images": [{"id": 1}], "annotations": [{}]},
            r"the first that was left out: own\.json image 1, image wi",
        ),
        (
            "coco",
            {"images": [karpathy_image("a.jpg", "train")]},
            "this one is Karpathy's: imgcap build karpathy reads it",
        ),
        ("karpathy", {"images": {}}, "is no Karpathy file: it needs a list `images`"),
        ("karpathy", {"images": [{"filename": 7}]}, r"none of its 1 images can be used \(the first: own\.json image 1"),
        ("karpathy", {"images": [karpathy_image("a.jpg", "hold")]}, r"own\.json, image a\.jpg, names the split 'hold'"),
    ],
)
def test_json_that_is_none_of_captions_is_told_in_a_line(
    coco_folder: Path, json_file: JsonFile, name: str, content: object, line: str
) -> None:
    path = json_file(coco_folder / "own.json", content)
    with pytest.raises(UserError, match=line):
        read_source(name, SourceOptions(images=coco_folder / "train2017", captions=(path,)))
