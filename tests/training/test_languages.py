"""Arabic from a caption file to scores and pictures: what a user of another language than English does."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgcap.pictures.lettering import is_right_to_left
from imgcap.shards.reader import ShardReader
from imgcap.shards.scenes.scene import Group, scene_at
from imgcap.text.vocabulary import Vocabulary

CHECKOUT = Path(__file__).parents[2]
SHAPES = {  # one, several, whether one of them is feminine
    "circle": ("دائرة", "دوائر", True),
    "square": ("مربع", "مربعات", False),
    "triangle": ("مثلث", "مثلثات", False),
    "star": ("نجمة", "نجوم", True),
    "cross": ("صليب", "صلبان", False),
}
COLOURS = {  # masculine, feminine
    "red": ("أحمر", "حمراء"),
    "orange": ("برتقالي", "برتقالية"),
    "yellow": ("أصفر", "صفراء"),
    "green": ("أخضر", "خضراء"),
    "blue": ("أزرق", "زرقاء"),
    "purple": ("بنفسجي", "بنفسجية"),
}
RELATIONS = {"left of": "على يسار", "above": "فوق"}


def phrase(group: Group) -> str:
    one, several, feminine = SHAPES[group.shape]
    many = group.count > 1
    return f"{several if many else one} {COLOURS[group.colour][many or feminine]}"


def captions_in_arabic(index: int) -> list[str]:
    scene = scene_at(index)
    told = phrase(scene.groups[0])
    if scene.relation:
        told += f" {RELATIONS[scene.relation]} {phrase(scene.groups[1])}"
    return [told, f"في الصورة {told} ."]


@pytest.fixture(scope="module")
def arabic(tmp_path_factory: pytest.TempPathFactory, shards: Path, warm: Any) -> Path:
    """The demo's pictures with Arabic captions, as a Karpathy file, built into a shard set."""
    folder = tmp_path_factory.mktemp("arabic")
    reader, images = ShardReader(shards, "train"), []
    for i in range(len(reader)):
        sample, split = reader.read(i), "train" if i < 46 else "val"
        (folder / sample.file_name).write_bytes(sample.jpeg)
        sentences = [{"raw": caption} for caption in captions_in_arabic(sample.image_id)]
        images.append({"filename": sample.file_name, "cocoid": sample.image_id, "split": split, "sentences": sentences})
    (folder / "dataset_scenes.json").write_text(json.dumps({"images": images, "dataset": "scenes"}))
    command = ["tools/build_shards.py", "karpathy", "--images", folder, "--captions", folder / "dataset_scenes.json"]
    command += ["--out", folder / "set", "--language", "ar", "--workers", "1"]
    ended = warm[False].run(command, CHECKOUT, os.environ)
    assert ended.returncode == 0, ended.stderr
    return folder / "set"


def test_arabic_from_captions_to_scores_and_pictures(
    arabic: Path, launch: Callable[..., Any], warm: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = [f"data.shards={arabic}", "data.language=ar", "train.max_steps=60", "optim.lr=5e-3", "eval.limit=12"]
    metrics = "eval.metrics=[BLEU,METEOR,ROUGE-L,CIDEr]"
    trained = launch(run, *settings, metrics)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.count("METEOR is left out for language 'ar'") == 1
    words = set(Vocabulary.load(run / "vocab.json").words)
    assert {"دائرة", "حمراء", "فوق"} <= words
    assert all(letter.isascii() or unicodedata.bidirectional(letter) == "AL" for word in words for letter in word)
    for name in ("val-00000060.png", "val-attention-00000060.png"):
        with Image.open(run / "samples" / name) as picture:
            assert picture.width > 500

    ended = warm[False].run(["launch/evaluate.py", run, "--split", "val"], CHECKOUT, os.environ)
    assert ended.returncode == 0, ended.stderr
    scores = json.loads(ended.stdout.splitlines()[-1])
    assert "METEOR" not in scores and "CIDEr" in scores and scores["BLEU-1"] > 0.2
    assert "|tokeniser:spacy-" in scores["signature"]
    assert "-blank-ar lower settled no-punctuation|" in scores["signature"]
    assert 0 <= scores["diversity"]["novel"] <= 1
    captions = json.loads((run / "results" / "val-captions.json").read_text())
    assert all(is_right_to_left(caption["caption"]) for caption in captions)


def test_the_tools_know_the_language_of_a_shard_set(arabic: Path, warm: Any, tmp_path: Path) -> None:
    reader = ShardReader(arabic, "val")
    samples = [reader.read_text(i) for i in range(len(reader))]
    own = [{"image_id": sample.image_id, "caption": sample.captions[1].replace(" .", "،")} for sample in samples]
    (tmp_path / "own.json").write_text(json.dumps(own))
    arguments = ["tools/score.py", "--references", f"{arabic}:val", "--results", tmp_path / "own.json"]
    ended = warm[False].run(arguments, CHECKOUT, os.environ)
    assert ended.returncode == 0, ended.stderr
    scores = json.loads(ended.stdout)
    assert (scores["BLEU-4"], scores["ROUGE-L"]) == (pytest.approx(1), 1), "punctuation is no word"
    assert "blank-ar" in scores["signature"] and "METEOR" not in scores
    look = warm[False].run(["tools/inspect_shards.py", arabic, "--out", tmp_path / "look"], CHECKOUT, os.environ)
    assert look.returncode == 0, look.stderr
