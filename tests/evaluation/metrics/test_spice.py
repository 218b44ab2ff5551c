"""SPICE where its programs are not, and with a program in its place that answers as it does."""

import sys
from pathlib import Path

import pytest

from imgcap.evaluation.metrics import spice
from imgcap.evaluation.metrics.scorers import score

REFERENCES = {7: ["a dog runs", "the dog"], 3: ["two men play chess"]}
HYPOTHESES = {7: "a dog", 3: "two men"}
ANSWER = """#!{python}
import json, sys
asked = json.load(open(sys.argv[4]))
assert asked[0] == {{"image_id": 7, "test": "a dog", "refs": ["a dog runs", "the dog"]}}, asked
scores = [{{"image_id": image["image_id"], "scores": {{"All": {{"f": image["image_id"] / 10}}}}}} for image in asked]
json.dump(scores{cut}, open(sys.argv[6], "w"))
"""


@pytest.fixture
def in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put the models there, and a program in Java's place that scores an image by its number."""

    def put(cut: str = "") -> None:
        (tmp_path / "lib").mkdir()
        for name in spice.MODELS:
            (tmp_path / "lib" / name).touch()
        program = tmp_path / "java"
        program.write_text(ANSWER.format(python=sys.executable, cut=cut))
        program.chmod(0o755)
        monkeypatch.setattr(spice, "FOLDER", tmp_path)
        monkeypatch.setattr(spice, "find_java", lambda: str(program))

    return put


def test_without_its_models_it_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spice, "FOLDER", tmp_path)
    assert list(score(HYPOTHESES, REFERENCES, ["ROUGE-L", "SPICE"])) == ["ROUGE-L"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("SPICE is left out: there is no ") and "fetch it with: python -c" in line


def test_with_them_it_is_the_mean_over_the_images(in_its_place) -> None:
    in_its_place()
    scores = score(HYPOTHESES, REFERENCES, ["ROUGE-L", "SPICE"])
    assert list(scores) == ["ROUGE-L", "SPICE"] and scores["SPICE"] == pytest.approx(0.5)


def test_an_image_that_is_not_scored_is_a_fault(in_its_place) -> None:
    in_its_place(cut="[:1]")
    with pytest.raises(RuntimeError, match="1 images of 2"):
        score(HYPOTHESES, REFERENCES, ["SPICE"])
