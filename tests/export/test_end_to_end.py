"""A trained run, exported, used where the run is not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgcap
from imgcap.export.artefact import export_run

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = ["train.max_steps=3", "train.precision=bf16", "eval.every=3", "eval.metrics=[BLEU,CIDEr]", "eval.beam=3"]
CAPTION = """
import json, sys
import imgcap
found = imgcap.load(sys.argv[1], "cpu").caption(sys.argv[2:])
print(json.dumps([[caption.text, caption.score] for caption in found]))
"""


@pytest.fixture
def start(warm: Any, shards: Path) -> Callable[..., str]:
    """Run a script in a process of its own; returns its stdout."""

    def run(script: Path | str, *arguments: object, cwd: Path = CHECKOUT) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = warm[False].run([script, *arguments], cwd, environment)
        assert ended.returncode == 0, ended.stderr
        return str(ended.stdout)

    return run


def test_an_artefact_does_all_that_its_run_did(
    launch: Callable[..., Any], start: Callable[..., str], shards: Path, tmp_path: Path
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    assert launch(run, *SETTINGS).returncode == 0
    scored = start("launch/evaluate.py", run, "--split", "test").splitlines()[-1]
    start("tools/export.py", run, "--out", elsewhere / "model")
    pictures = sorted((shards.parent / "demo-raw").glob("*.jpg"))[:20]
    before = [[caption.text, caption.score] for caption in imgcap.load(run, "cpu").caption(pictures)]
    shutil.rmtree(run)

    (elsewhere / "use.py").write_text(CAPTION)
    after = json.loads(start(elsewhere / "use.py", "model", *pictures, cwd=elsewhere))
    assert [text for text, _ in after] == [text for text, _ in before]
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=1e-6)
    model = elsewhere / "model"
    rescored = start("launch/evaluate.py", model, f"data.shards={shards}", "--split", "test").splitlines()[-1]
    assert rescored == scored
    kept = json.loads((model / "scores.json").read_text())
    assert kept["test"] == json.loads(scored) and set(kept) == {"test", "val"}
    assert (model / "samples" / "val.png").is_file()
    named = json.loads(start("tools/caption.py", model, *pictures[:2], "--json", "--device", "cpu"))
    assert [entry["caption"] for entry in named] == [text for text, _ in before[:2]]


@pytest.fixture
def mistake(warm: Any) -> Callable[..., str]:
    """Run a tool that must end with one line and exit code 2; returns the line."""

    def run(*arguments: object) -> str:
        ended = warm[False].run(arguments, CHECKOUT, os.environ)
        assert ended.returncode == 2, ended.stderr
        last = ended.stderr.splitlines()[-1]
        assert last.startswith("error: ") and "Traceback" not in ended.stderr
        return str(last)

    return run


def test_mistakes_are_one_line_and_exit_2(
    mistake: Callable[..., str], small_run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "is no run and no artefact" in mistake("tools/export.py", tmp_path / "nowhere", "--out", out)
    empty = make_run(tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    assert f"no checkpoint in {empty}/checkpoints" in mistake("tools/export.py", empty, "--out", out)
    assert "is no name on the hub" in mistake("tools/export.py", small_run, "--out", out, "--push", "nobody")
    assert not out.exists()

    export_run(small_run, out)
    assert "is an artefact already" in mistake("tools/export.py", out, "--out", tmp_path / "again")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "void").mkdir()
    assert "no picture could be read; see" in mistake("tools/caption.py", out, tmp_path / "notes.txt")
    assert "there is no picture in" in mistake("tools/caption.py", out, tmp_path / "void")
    assert "there is no picture or folder" in mistake("tools/caption.py", out, tmp_path / "nowhere.jpg")
    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    told = mistake("tools/caption.py", out, tmp_path / "notes.txt")
    assert "the sha256 of model.safetensors isn't the one it was saved with" in told
