"""A model is scored on the set that it was trained on; on another only where that is said, and then it is told."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

from imgcap.export.artefact import export_run
from imgcap.shards.builder import build
from imgcap.shards.identity import SetIdentity
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source
from imgcap.types import Record

WORDS = ["a", "red", "green", "dog", "cat", "runs", "sits"]


class Words:
    name = "split on white space"

    def __call__(self, caption: str) -> list[str]:
        return caption.lower().split()


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was said on stderr, without how the CPU is named."""
        return [line for line in self.err.splitlines() if not line.startswith("no GPU was found")]


def make_set(folder: Path, name: str, seed: int) -> Path:
    random, records = np.random.default_rng(seed), []
    for number in range(3):
        path = folder.parent / f"{name}-photos" / f"dog {number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 9, 3)).astype(np.uint8)).resize((40, 40)).save(path)
        captions = tuple(" ".join(random.choice(WORDS, 4)) for _ in range(2))
        records.append(Record(10**15 + number, path.name, path, captions))
    build(Source(name, {"val": records}, []), folder, Words())
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two sets in shards/: demo, which everybody has, and mine."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    make_set(tmp_path / "shards" / "demo", "demo", 0)
    make_set(tmp_path / "shards" / "mine", "mine", 1)
    return tmp_path


@pytest.fixture
def run(home: Path) -> Path:
    """A run on shards/mine."""
    state = {"shards": SetIdentity.of(ShardReader("shards/mine", "val")).as_json()}
    return save_run(home / "run", WORDS, DATA, "eval={batch: 2, beam: 2, metrics: []}", state=state)


DATA = "data={shards: shards/mine, image_size: 32, max_tokens: 5, workers: 0}"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def start(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["imgcap", "evaluate", *map(str, arguments), "--split", "val"])
        capfd.readouterr()
        code = 0
        try:
            runpy.run_module("imgcap", run_name="__main__")
        except SystemExit as left:
            code = int(left.code or 0)
        return Ended(code, *capfd.readouterr())

    return start


def scores_of(ended: Ended) -> dict:
    assert ended.code == 0, ended.err
    return json.loads(ended.out.splitlines()[-1])


def test_an_artefact_is_scored_on_its_own_set_and_on_no_other(run: Path, evaluate: Callable[..., Ended]) -> None:
    export_run(run, Path("artefact"))
    own = scores_of(evaluate(run))
    found = scores_of(evaluate("artefact"))
    assert found == own and found["signature"].startswith("shards:mine@") and "trained_on" not in found
    shutil.move("shards/mine", "elsewhere")
    ended = evaluate("artefact")  # where shards/demo is, as everywhere
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.lines
    assert "was trained on mine@" in line and "isn't in shards/mine here" in line and "data.shards=DIR" in line
    assert scores_of(evaluate("artefact", "data.shards=elsewhere")) == own
    (Path("run") / "results" / "val-scores.json").unlink()
    assert scores_of(evaluate(run, "data.shards=elsewhere")) == own
    assert sorted(path.name for path in Path("run/results").glob("*-scores.json")) == ["val-scores.json"]


def test_a_set_that_was_built_anew_is_not_taken_for_the_old_one(
    run: Path, home: Path, evaluate: Callable[..., Ended]
) -> None:
    export_run(run, Path("artefact"))
    shutil.rmtree("shards/mine")
    make_set(home / "shards" / "mine", "mine", 2)
    assert "was trained on mine@" in evaluate("artefact").lines[0]
    ended = evaluate(run)
    assert "another build of its set" in ended.lines[0] and scores_of(ended)["trained_on"].startswith("mine@")
    assert Path("run/results/mine-val-scores.json").is_file() and not Path("run/results/val-scores.json").exists()


@pytest.mark.parametrize("model", ["run", "artefact"])
def test_another_set_is_told_first_and_in_the_scores(model: str, run: Path, evaluate: Callable[..., Ended]) -> None:
    export_run(run, Path("artefact"))
    ended = evaluate(model, "data.shards=shards/demo", "--out", "scores.json")
    first = ended.err.splitlines()[0]
    assert f"{model} is scored on demo@" in first and "another set than it was trained on, which is mine@" in first
    trained_on = str(SetIdentity.of(ShardReader("shards/mine", "val")))
    assert scores_of(ended)["trained_on"] == json.loads(Path("scores.json").read_text())["trained_on"] == trained_on
    if model == "run":
        assert json.loads(Path("run/results/demo-val-scores.json").read_text())["trained_on"] == trained_on


def test_an_artefact_of_an_older_imgcap_asks_for_the_set(home: Path, evaluate: Callable[..., Ended]) -> None:
    export_run(save_run(home / "old", WORDS, DATA, "eval.metrics=[]"), Path("artefact"))
    assert "shards" not in json.loads(Path("artefact/config.json").read_text())
    (line,) = evaluate("artefact").lines
    assert "doesn't say which set it was trained on" in line and "data.shards=DIR" in line
    assert "trained_on" not in scores_of(evaluate("artefact", "data.shards=shards/demo"))


def test_a_checkpoint_of_0_1_0_names_its_set_by_its_plan(home: Path, evaluate: Callable[..., Ended]) -> None:
    sha256 = ShardReader("shards/mine", "val").manifest_sha256
    state = {"plan": {"manifest_sha256": sha256}}
    export_run(save_run(home / "old", WORDS, DATA, "eval.metrics=[]", state=state), Path("artefact"))
    assert scores_of(evaluate("artefact"))["signature"].startswith("shards:mine@")


def test_the_card_says_a_command_that_works(run: Path, evaluate: Callable[..., Ended]) -> None:
    evaluate(run)
    export_run(run, Path("artefact"))
    card = Path("artefact/README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("imgcap evaluate ")]
    told, comment = line.split("#")
    assert told.split() == ["imgcap", "evaluate", "artefact", "--split", "val"]
    assert "in shards/mine;" in comment and "trained on mine@" in card
    scores_of(evaluate("artefact"))


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("shards/mine", "shards/mine"),
        ("s3://bucket/mine", "s3://bucket/mine"),
        ("https://me:secret@host/mine", None),
        ("/home/someone/mine", None),
        ("../mine", None),
    ],
)
def test_a_place_tells_others_nothing_of_this_machine(place: str, shown: str | None) -> None:
    assert SetIdentity("mine", "0" * 64, place).for_others().place == shown


@pytest.mark.parametrize("model", ["run", "artefact"])
def test_a_limit_is_heeded_where_it_is_given_and_none_of_training(
    model: str, home: Path, evaluate: Callable[..., Ended]
) -> None:
    state = {"shards": SetIdentity.of(ShardReader("shards/mine", "val")).as_json()}
    save_run(home / "run", WORDS, DATA, "eval={batch: 2, beam: 2, metrics: [BLEU], limit: 1}", state=state)
    export_run(home / "run", Path("artefact"))
    for given, images in ([], 3), (["eval.limit=2"], 2), (["eval.limit=null"], 3), (["eval.beam=1"], 3):
        ended = evaluate(model, *given)
        assert f"|images:{images}|references:{2 * images}|" in scores_of(ended)["signature"]
        assert f"{images} images of mine" in ended.err
    of_two = json.loads(Path("run/results/val-first-2-captions.json").read_text()) if model == "run" else [1, 2]
    assert len(of_two) == 2 and not Path("run/results/val-first-1-captions.json").exists()


def test_rows_name_the_file_of_each_image(run: Path, evaluate: Callable[..., Ended]) -> None:
    evaluate(run)
    for name in ("captions", "images"):
        rows = json.loads(Path(f"run/results/val-{name}.json").read_text())
        assert [(row["image_id"], row["image"]) for row in rows] == [(10**15 + i, f"dog {i}.jpg") for i in range(3)]


def test_the_table_is_that_of_score_and_says_its_scale(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], evaluate: Callable[..., Ended]
) -> None:
    ended = evaluate(run, "eval.metrics=[BLEU,CIDEr]")
    scores = scores_of(ended)
    given = ["--references", "shards/mine:val", "--results", "run/results/val-captions.json"]
    monkeypatch.setattr(sys, "argv", ["imgcap", "score", *given, "--metrics", "BLEU", "CIDEr"])
    runpy.run_module("imgcap", run_name="__main__")
    table = capfd.readouterr().err.splitlines()
    for name in ("BLEU-1", "BLEU-4", "CIDEr"):
        row = f"{name:>18}  {scores[name]:.3f}"
        assert row in table and row in ended.lines
    assert table[-1] == ended.lines[-1] and "between 0 and 1, CIDEr" in table[-1]
    assert "3 images of mine (shards/mine), split val" in ended.lines[0]
