"""tools/score.py as a user runs it: the scores of pycocoevalcap, and one line for each mistake."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imgcap.evaluation.coco_files import with_other_images
from imgcap.evaluation.metrics.scorers import score
from imgcap.shards.scenes.captions import captions_of
from imgcap.shards.scenes.scene import indices, scene_at

REFERENCES = {
    7: ["A dog runs over the grass.", "The brown dog can't stop running !", "a dog outdoors"],
    3: ["Two men (in U.S. uniforms) play chess", "Men are playing a game of chess."],
    12: ["A child's red ball", "A ball on the table etc."],
}
HYPOTHESES = {3: "two men playing chess", 7: "a dog runs on grass", 12: "a red ball on the table"}
FAST = ["--metrics", "BLEU", "ROUGE-L", "CIDEr"]


@pytest.fixture
def files(tmp_path: Path):
    """Write references and results; returns the two paths."""

    def write(references: Any = REFERENCES, hypotheses: Any = HYPOTHESES) -> tuple[str, str]:
        content = {
            "images": [{"id": image_id} for image_id in references],
            "annotations": [
                {"id": number, "image_id": image_id, "caption": caption}
                for number, (image_id, caption) in enumerate((i, c) for i, group in references.items() for c in group)
            ],
        }
        results = [{"image_id": image_id, "caption": caption} for image_id, caption in hypotheses.items()]
        (tmp_path / "references.json").write_text(json.dumps(content))
        (tmp_path / "results.json").write_text(json.dumps(results))
        return str(tmp_path / "references.json"), str(tmp_path / "results.json")

    return write


@pytest.fixture
def run(command: Callable[..., Any]) -> Callable[..., Any]:
    return partial(command, "tools/score.py")


def scores_of(process: Any) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_a_metric_that_needs_pictures_is_refused_in_one_line(files, run) -> None:
    references, results = files()
    mistake = run("--references", references, "--results", results, "--metrics", "BLEU", "CLIPScore").mistake
    assert "CLIPScore needs the pictures too; imgcap evaluate computes it, with eval.metrics=CLIPScore and" in mistake


def test_prints_the_scores_as_the_last_line(files, run, tmp_path: Path) -> None:
    references, results = files()
    process = run("--references", references, "--results", results, *FAST, "--out", str(tmp_path / "scores.json"))
    scores = scores_of(process)
    assert len(process.stdout.splitlines()) == 1
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert "images:3|references:7|" in scores.pop("signature")
    assert scores == score(HYPOTHESES, REFERENCES, FAST[1:])


def test_a_separator_in_a_caption_changes_nothing(files, run) -> None:
    plain = scores_of(run("--references", files()[0], "--results", files()[1], *FAST))
    disturbed = {i: [caption.replace(" ", "\u2028", 1) for caption in group] for i, group in REFERENCES.items()}
    references, results = files(disturbed, {i: caption.replace(" ", "\r", 1) for i, caption in HYPOTHESES.items()})
    assert scores_of(run("--references", references, "--results", results, *FAST)) == plain


@pytest.mark.parametrize(
    ("references", "hypotheses", "found"),
    [
        (REFERENCES, {**HYPOTHESES, 99: "a"}, "example 99"),
        ({**REFERENCES, 99: ["a"]}, HYPOTHESES, "example 99"),
        (REFERENCES, {}, "no captions"),
    ],
)
def test_images_that_do_not_match_are_one_line(files, run, references: dict, hypotheses: dict, found: str) -> None:
    paths = files(references, hypotheses)
    process = run("--references", paths[0], "--results", paths[1], *FAST)
    assert process.returncode == 2 and process.stdout == ""
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and found in last and "Traceback" not in process.stderr


def test_subset_scores_the_images_that_have_a_result(files, run) -> None:
    references, results = files({**REFERENCES, 99: ["a"]})
    subset = scores_of(run("--references", references, "--results", results, "--subset", *FAST))
    subset.pop("signature")
    assert subset == score(HYPOTHESES, REFERENCES, FAST[1:])


@pytest.mark.parametrize(
    "content", ["", "{", "{}", '[{"image_id": "x", "caption": "a"}]', '[{"image_id": 1}]', "[1]", "\xff"]
)
def test_files_of_another_sort_are_one_line(files, run, tmp_path: Path, content: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content.encode("latin-1"))
    process = run("--references", files()[0], "--results", str(bad))
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1


def test_the_imgcap_protocol_is_in_the_signature(files, run) -> None:
    references, results = files()
    usual = scores_of(run("--references", references, "--results", results, *FAST))
    theirs = scores_of(run("--references", references, "--results", results, "--protocol", "imgcap"))
    assert "|protocol:imgcap|tokeniser:spacy-" in theirs["signature"] and "protocol" not in usual["signature"]
    assert list(theirs) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr", "signature"]
    assert theirs["BLEU-1"] != usual["BLEU-1"]
    refused = run("--references", references, "--results", results, "--protocol", "imgcap", *FAST)
    assert refused.returncode == 2 and "leave out --metrics" in refused.stderr


def test_a_language_is_named_and_scored_by_its_own_words(files, run) -> None:
    captions = {1: ["كلب بني، على العشب"], 2: ["رجل يركب دراجة ."]}
    references, results = files(captions, {1: "كلب بني على العشب", 2: "رجل يركب دراجة"})
    ended = run("--references", references, "--results", results, "--language", "ar")
    scores = scores_of(ended)
    assert scores["ROUGE-L"] == 1 and "METEOR" not in scores and "METEOR is left out" in ended.stderr
    assert "blank-ar lower settled no-punctuation" in scores["signature"]


def test_facts_of_demo_scenes(run, tmp_path: Path) -> None:
    scenes = indices("test", 6)
    results = [{"image_id": index, "caption": captions_of(scene_at(index))[0]} for index in scenes]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    facts = scores_of(run("--results", str(path), "--facts"))["facts"]
    assert facts["captions"] == facts["wholly_true"] == len(scenes)
    shuffled = scores_of(run("--results", str(path), "--facts", "--shuffle-images", "0"))["facts"]
    assert shuffled["wholly_true"] < len(scenes)


@pytest.mark.parametrize("seed", range(5))
def test_every_image_gets_the_caption_of_another(seed: int) -> None:
    hypotheses = {number: f"caption {number}" for number in range(7)}
    shuffled = with_other_images(hypotheses, seed)
    assert sorted(shuffled.values()) == sorted(hypotheses.values())
    assert all(shuffled[number] != hypotheses[number] for number in hypotheses)
    assert shuffled == with_other_images(dict(reversed(hypotheses.items())), seed)


RESULTS = {
    '[{"image_id": 1e999, "caption": "a"}]': "entry 1, has no whole number 'image_id': {\"image_id\": Infinity",
    "[" * 100_000: "is nested too deeply to be what it is taken for; name a file of captions in COCO's format",
    '[{"image_id": 3, "caption": "a"}, {"image_id": 1.9, "caption": "b"}]': "entry 2, has no whole number 'image_id'",
    '[{"image_id": true, "caption": "a dog"}]': "entry 1, has no whole number 'image_id'",
    '[{"image_id": 3, "caption": null}]': "entry 1, has no text 'caption'",
    '[{"image_id": 3, "caption": "a"}, {"image_id": "3", "caption": "b"}]': "entry 2, is the second caption of image 3",
    "[7]": "entry 1, has no whole number 'image_id': 7; mend it, or take it out",
    '{"image_id": 3}': "holds no list",
}
REFERENCE_FILES = {
    '{"images": null, "annotations": [{"image_id": 1, "caption": "a dog"}]}': "has no list 'images'",
    '{"images": [{"id": 1}], "annotations": {}}': "has no list 'annotations'",
    '{"images": [{"id": null}], "annotations": []}': "image 1, has no whole number 'id'",
    '{"annotations": [{"image_id": 3, "caption": "a"}, {"image_id": 3}]}': "annotation 2, has no text 'caption'",
    "null": "has no list 'annotations'",
}


@pytest.mark.parametrize("text", [*RESULTS, *REFERENCE_FILES], ids=lambda text: text[:60])
def test_an_entry_that_is_none_is_named_in_a_line(files, run, text: str) -> None:
    references, results = files()
    Path(results if text in RESULTS else references).write_text(text)
    assert (RESULTS | REFERENCE_FILES)[text] in run("--references", references, "--results", results, *FAST).mistake


def test_ids_may_be_text_or_floats_that_are_whole(files, run) -> None:
    references, results = files()
    Path(results).write_text(json.dumps([{"image_id": i, "caption": "a dog"} for i in ("7", 3.0, 12)]))
    assert scores_of(run("--references", references, "--results", results, *FAST))["signature"].startswith("images:3")
