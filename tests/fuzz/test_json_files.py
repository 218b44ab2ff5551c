"""COCO, Karpathy and result files with something wrong in one place: the rest is read as ever, or all is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import Changed, changed_bytes, changed_json, check_line, fuzz
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.evaluation.coco_files import file_names, read_references, read_results

PHOTOS = 6
TEXTS = {number: f"A photo of {word} ." for number, word in enumerate(["zero", "one", "two", "three", "four", "five"])}
IMAGES = [{"id": number, "file_name": f"{number}.jpg"} for number in TEXTS]
ANNOTATIONS = [{"id": 10 + number, "image_id": number, "caption": text} for number, text in TEXTS.items()]
COCO = {"info": {"year": 2014}, "images": IMAGES, "annotations": ANNOTATIONS}
KARPATHY = {
    "dataset": "own",
    "images": [
        {
            "filename": f"{number}.jpg",
            "imgid": number,
            "cocoid": number,
            "split": "train" if number else "val",
            "sentences": [{"raw": text, "tokens": text.lower().split()}],
        }
        for number, text in TEXTS.items()
    ],
}
ROWS = [{"image": f"{number}.jpg", "caption": [text]} for number, text in TEXTS.items()]
NAMES = {f"{number}.jpg": [text] for number, text in TEXTS.items()}


def number_of(path: tuple[Any, ...], document: Any) -> int | None:
    """The photo whose entry a path leads into; None where it leads elsewhere, above all to the lists themselves."""
    for place in (path[:2], path[:1]):
        entry: Any = document
        for step in place:
            entry = entry[step]
        for key in ("image_id", "id", "filename", "image"):
            if isinstance(entry, dict) and key in entry:
                return int(str(entry[key]).removesuffix(".jpg"))
    return int(path[0].removesuffix(".jpg")) if path and document is NAMES else None


def check(captions: dict[str, list[str]], touched: int | None) -> None:
    """Photos other than the touched one have their own caption; whatever else they have was that one's."""
    for number, text in TEXTS.items():
        if number != touched:
            found = captions.get(f"{number}.jpg", [])
            assert text in found and set(found) & set(TEXTS.values()) <= {text, TEXTS.get(touched, text)}, captions


@pytest.mark.parametrize(
    ("target", "document", "source"),
    [
        ("coco", COCO, ("coco", "--images", "PHOTOS", "--captions", "FILE")),
        ("karpathy", KARPATHY, ("karpathy", "--images", "PHOTOS", "--captions", "FILE")),
        ("json rows", ROWS, ("folder", "FILE", "--images", "PHOTOS", "--val", 0, "--test", 0)),
        ("json names", NAMES, ("folder", "FILE", "--images", "PHOTOS", "--val", 0, "--test", 0)),
        ("coco folder", COCO, ("folder", "FILE", "--images", "PHOTOS", "--val", 0, "--test", 0)),
    ],
)
def test_captions_with_something_wrong(
    target: str, document: Any, source: tuple[Any, ...], photos: Path, tmp_path: Path, built: Callable[..., Any]
) -> None:
    path = tmp_path / "captions.json"
    arguments = [{"PHOTOS": photos, "FILE": path}.get(word, word) for word in source]

    def build(changed: Any) -> None:
        place: tuple[Any, ...] | None = None
        if isinstance(changed, Changed):
            path.write_bytes(changed.data)
        else:
            value, place = changed
            path.write_text(json.dumps(value))
        ended, captions = built(*arguments)
        if ended.code == 0 and place and (touched := number_of(place, document)) is not None:
            check(captions, touched)

    whole = json.dumps(document)
    path.write_text(whole)
    ended, captions = built(*arguments)
    assert ended.code == 0 and not captions.get("")
    check(captions, None)
    fuzz(target, changed_json(document) | changed_bytes(whole.encode()), build)


RESULTS = [{"image_id": number, "caption": text, "image": f"{number}.jpg"} for number, text in TEXTS.items()]


@pytest.mark.parametrize(("target", "document"), [("results", RESULTS), ("references", COCO)])
def test_results_and_references_with_something_wrong(target: str, document: Any, tmp_path: Path) -> None:
    path, read = tmp_path / "file.json", read_results if target == "results" else read_references

    def check_file(changed: Any) -> None:
        place: tuple[Any, ...] = ()
        if isinstance(changed, Changed):
            path.write_bytes(changed.data)
        else:
            value, place = changed
            path.write_text(json.dumps(value))
        try:
            found = read(str(path))
            assert all(isinstance(image_id, int) and not isinstance(image_id, bool) for image_id in found)
            assert set(file_names(str(path))) <= set(found)
        except UserError as error:
            assert str(path) in check_line(str(error))
            return
        touched = number_of(place, document) if place else None
        for number, text in TEXTS.items() if place and touched is not None else ():
            if number != touched:
                assert text in found[number]

    check_file((document, ()))
    fuzz(target, changed_json(document) | changed_bytes(json.dumps(document).encode()), check_file)


def test_split_lists_with_something_wrong(tmp_path: Path, photos: Path, built: Callable[..., Any]) -> None:
    lists, captions = tmp_path / "lists", tmp_path / "captions.csv"
    lists.mkdir()
    captions.write_text("image,caption\n" + "".join(f"{number}.jpg,{text}\n" for number, text in TEXTS.items()))
    (lists / "val.txt").write_text("0.jpg\n")
    train = "".join(f"{number}.jpg\n" for number in range(1, PHOTOS)).encode()

    def build(changed: Any) -> None:
        (lists / "train.txt").write_bytes(changed.data)
        ended, found = built("flickr8k", "--images", photos, "--captions", captions, "--splits", lists)
        if ended.code == 0:
            assert all(TEXTS[int(name[0])] in texts for name, texts in found.items() if name)
            assert len([name for name in found if name]) + len(found.get("", [])) >= PHOTOS

    fuzz("split lists", changed_bytes(train) | st.nothing(), build)
