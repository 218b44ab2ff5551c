"""Flickr8k and COCO as they are downloaded: built, verified, trained on and scored. Skipped where they are absent."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from imgcap.evaluation.metrics.ptb import find_java
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader

pytestmark = pytest.mark.slow

LIMIT = 40  # images of a split
Command = Callable[..., Any]


def done(ended: Any) -> Any:
    assert ended.returncode == 0, ended.stderr
    return ended


def build(command: Command, source: str, out: Path, **options: object) -> Path:
    """Build `LIMIT` images of a split and verify every byte and picture."""
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", value)]
    done(command("tools/build_shards.py", source, "--out", out, "--resize", 64, "--limit", LIMIT, *arguments))
    done(command("tools/verify_shards.py", out, "--decode"))
    return out


def train_and_evaluate(command: Command, tiny: list[str], shards: Path, run: Path) -> dict[str, Any]:
    """Two steps of training; the scores that launch/evaluate.py prints of `val`."""
    settings = [*tiny, f"data.shards={shards}", f"run_dir={run}", "train.max_steps=2", "vocab.min_count=2"]
    done(command("launch/train.py", "--config", os.devnull, *settings))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/images"] for line in lines] == [8, 8]
    ended = done(command("launch/evaluate.py", run, "--split", "val", "eval.batch=16"))
    return json.loads(ended.stdout.splitlines()[-1])


def test_both_caption_files_of_flickr8k_give_the_same_shards(
    command: Command, tiny: list[str], real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "flickr8k"
    common = {"images": folder / "Images", "workers": 1}
    sets = [
        build(command, "flickr8k", tmp_path / name, captions=folder / file, **common)
        for name, file in {"csv": "captions.txt", "token": "Flickr8k.token.txt"}.items()
    ]
    names = ["train-00000.tar", "train.index.npz", "val-00000.tar", "val.index.npz", "token_counts.json"]
    assert sorted([*names, "manifest.json"]) == sorted(path.name for path in sets[0].iterdir())
    for name in names:
        assert (sets[0] / name).read_bytes() == (sets[1] / name).read_bytes(), name
    manifest = Manifest.load(sets[0])
    assert {split: (info.images, info.captions) for split, info in manifest.splits.items()} == {
        "train": (LIMIT, 5 * LIMIT),
        "val": (LIMIT, 5 * LIMIT),
    }
    scores = train_and_evaluate(command, tiny, sets[0], tmp_path / "run")
    assert f"images:{LIMIT}|references:{5 * LIMIT}|" in scores["signature"]


def test_coco_is_built_trained_on_and_evaluated(
    command: Command, tiny: list[str], real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "coco-mini"
    shards = build(command, "coco", tmp_path / "coco", images=folder, captions=folder / "annotations", workers=1)
    published = json.loads((folder / "annotations" / "captions_train2017.json").read_text())["annotations"]
    captions = {(annotation["image_id"], annotation["caption"].strip()) for annotation in published}
    manifest = Manifest.load(shards)
    assert list(manifest.splits) == ["train", "val", "test"], "COCO's train file alone is cut by a seed"
    seen = [image_id_and_captions(shards, split) for split in manifest.splits]
    assert sum(map(len, seen)) == len({image_id for split in seen for image_id in split}), "splits share an image"
    assert {(image_id, caption) for split in seen for image_id in split for caption in split[image_id]} <= captions
    scores = train_and_evaluate(command, tiny, shards, tmp_path / "run")
    assert f"images:{manifest.splits['val'].images}|" in scores["signature"]


def image_id_and_captions(shards: Path, split: str) -> dict[int, list[str]]:
    reader = ShardReader(shards, split)
    return {sample.image_id: sample.captions for sample in map(reader.read, range(len(reader)))}


def score_tool(command: Command, folder: Path, hypotheses: dict[int, str], references: dict[int, list[str]]) -> Any:
    """The scores that tools/score.py prints of these captions."""
    results = [{"image_id": image_id, "caption": caption} for image_id, caption in hypotheses.items()]
    annotations = [{"image_id": i, "caption": caption} for i, group in references.items() for caption in group]
    images = [{"id": image_id} for image_id in references]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "references.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    files = ["--references", folder / "references.json", "--results", folder / "results.json"]
    scores = json.loads(done(command("tools/score.py", *files)).stdout.splitlines()[-1])
    assert scores.pop("signature").startswith(f"images:{len(references)}|references:{len(annotations)}|")
    return scores


@pytest.mark.exhaustive
def test_the_scoring_tool_is_pycocoevalcap_on_real_captions(
    command: Command, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first caption of an image is the hypothesis, the others are its references."""
    file = real_data / "coco-mini" / "annotations" / "captions_train2017.json"
    captions: dict[int, list[str]] = {}
    for annotation in json.loads(file.read_text())["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    hypotheses = {image_id: group[0] for image_id, group in captions.items()}
    references = {image_id: group[1:] for image_id, group in captions.items()}
    monkeypatch.setenv("PATH", os.path.dirname(find_java()) + os.pathsep + os.environ["PATH"])
    expected = directly(hypotheses, references)
    assert score_tool(command, tmp_path, hypotheses, references) == expected

    first, second, third = list(captions)[:3]
    hypotheses[first] = hypotheses[first].replace(" ", "\r", 1)
    hypotheses[second] = hypotheses[second].replace(" ", "\u2028", 1)
    references[third] = [c.replace(" ", "\r\u2028"[k % 2], 1) for k, c in enumerate(references[third])]
    assert score_tool(command, tmp_path, hypotheses, references) == expected


def directly(hypotheses: dict[int, str], references: dict[int, list[str]]) -> dict[str, float]:
    """The scores as pycocoevalcap's own COCOEvalCap computes them."""
    tokeniser = PTBTokenizer()
    gts = tokeniser.tokenize({i: [{"caption": caption} for caption in group] for i, group in references.items()})
    res = tokeniser.tokenize({i: [{"caption": hypotheses[i]}] for i in references})
    scores = {f"BLEU-{n}": value for n, value in enumerate(Bleu(4).compute_score(gts, res)[0], 1)}
    for name, scorer in (("METEOR", Meteor), ("ROUGE-L", Rouge), ("CIDEr", Cider)):
        scores[name] = scorer().compute_score(gts, res)[0]
    return scores
