"""Looking at a shard set: what is drawn, what is counted, and images that two splits share."""

import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from imgcap.shards.builder import build
from imgcap.shards.inspection import inspect, perceptual_hash, shares_by_length
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source, image_id_of
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.tokeniser import Tokeniser
from imgcap.types import Record

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def leaking(tmp_path, shards):
    """Twelve scenes to train with; val has one of them as it is, one smaller and encoded anew, and three others."""
    reader, photos = ShardReader(shards, "train"), tmp_path / "photos"
    photos.mkdir()
    scenes = [reader.read(i).jpeg for i in range(15)]
    with Image.open(io.BytesIO(scenes[4])) as image:
        again = io.BytesIO()
        image.resize((90, 90)).save(again, "JPEG", quality=70)
    images = {"train": scenes[:12], "val": [scenes[3], again.getvalue(), *scenes[12:]]}
    splits = {}
    for split, pictures in images.items():
        for number, data in enumerate(pictures):
            path = photos / f"{split}{number}.jpg"
            path.write_bytes(data)
            captions = ("a common word", "seen twice" if split == "train" else "never seen")
            splits.setdefault(split, []).append(Record(image_id_of(path.name), path.name, path, captions))
    build(Source("leaking", splits, []), tmp_path / "set", Tokeniser("en"))
    return tmp_path / "set"


def test_images_of_two_splits_are_found_by_bytes_and_by_looks(leaking, tmp_path):
    report = inspect(Place(leaking), tmp_path / "look")
    assert (report["twice"]["exact"], report["twice"]["alike"]) == (1, 1)
    pairs = [(pair["place"], pair["other_place"], pair["exact"]) for pair in report["twice"]["pairs"]]
    assert pairs == [(3, 0, True), (4, 1, False)]
    assert {path.name for path in (tmp_path / "look").iterdir()} == {
        "samples-train.png", "samples-val.png", "captions.png", "twice.png",
    }  # fmt: skip
    for path in (tmp_path / "look").iterdir():
        with Image.open(path) as drawn:
            drawn.load()
            assert drawn.width > 500 and len(set(drawn.convert("L").tobytes())) > 10


def test_lengths_that_no_caption_has_are_drawn_as_none():
    """The line went straight from one length to the next that occurs, over those between, as if captions had them."""
    assert shares_by_length(Counter({3: 3, 6: 1})) == ([3, 4, 5, 6], [0.75, 0, 0, 0.25])
    assert shares_by_length(Counter()) == ([], [])


def test_a_damaged_sample_is_counted_and_shifts_no_other(leaking, tmp_path):
    row = ShardReader(leaking, "train")._index[1]
    tar = leaking / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[row.jpg_offset + 50] ^= 1
    tar.write_bytes(data)
    report = inspect(Place(leaking), tmp_path / "look")
    assert report["splits"]["train"]["damaged"] == 1 and report["splits"]["train"]["images"] == 11
    assert [(pair["place"], pair["other_place"]) for pair in report["twice"]["pairs"]] == [(3, 0), (4, 1)]


def test_words_that_train_lacks_are_counted(leaking, tmp_path):
    report = inspect(Place(leaking), tmp_path / "look")
    # Of val's 5 × (3 + 2) words "never" stands in no caption of train; "seen" stands in each of its twelve images.
    assert report["unknown_words"]["val"]["1"] == pytest.approx(5 / 25)
    assert report["splits"]["val"] == {
        "images": 5, "damaged": 0, "captions": 10, "words": 25, "different_words": 5, "median_length": 3, "longest": 3,
    }  # fmt: skip
    assert report["splits"]["train"]["words"] == TokenCounts.load(leaking).counts.total()


def test_a_picture_in_another_size_and_quality_keeps_its_hash(shards):
    jpeg = ShardReader(shards, "train").read(0).jpeg
    with Image.open(io.BytesIO(jpeg)) as image:
        out = io.BytesIO()
        image.resize((70, 70)).save(out, "PNG")
    bits = [a ^ b for a, b in zip(perceptual_hash(jpeg), perceptual_hash(out.getvalue()), strict=True)]
    assert sum(number.bit_count() for number in bits) <= 6


def test_the_tool_writes_its_report(leaking, tmp_path, warm):
    arguments = ["tools/inspect_shards.py", leaking, "--out", tmp_path / "look", "--json", "--limit", "4"]
    ended = warm[False].run(arguments, CHECKOUT, os.environ)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report == json.loads((tmp_path / "look/report.json").read_text())
    assert report["splits"]["train"]["images"] == 4
    refused = warm[False].run(["tools/inspect_shards.py", tmp_path / "nowhere"], CHECKOUT, os.environ)
    assert refused.returncode == 2 and refused.stderr.startswith("error: there is no shard folder")
    assert not (tmp_path / "nowhere-look").exists()
