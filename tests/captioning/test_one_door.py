"""One model through every door: what captions and what scores say the same, in the precision it was trained in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from untrained import save_run

import imgcap
from imgcap.captioning.page.server import Limits, Page
from imgcap.export.artefact import export_run
from imgcap.models.trained import FILES, open_trained

huggingface_hub = pytest.importorskip("huggingface_hub")
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]
BATCH = 19


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Trained in bfloat16, encoder and all, on the sharp weights that tell one rounding from another."""
    settings = [f"data={{shards: {shards}, image_size: 48, max_tokens: 7, workers: 0}}", "train.precision=bf16"]
    settings += ["model.encoder={name: resnet18, weights: none, output_stride: 16, train: all}"]
    settings += [f"eval={{beam: 3, batch: {BATCH}, metrics: [BLEU], unk: false}}"]
    return save_run(tmp_path_factory.mktemp("doors") / "run", WORDS, *settings)


@pytest.fixture
def doors(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path | str]:
    """The model by each of its names; only the hub's transport is ours."""
    export_run(run, tmp_path / "artefact")

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repo_id, allow_patterns) == ("someone/captions", FILES)
        return str(tmp_path / "artefact")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return {"run": run, "artefact": tmp_path / "artefact", "hub": "someone/captions"}


@pytest.mark.slow
def test_every_door_gives_the_same_captions_and_scores(
    doors: dict[str, Path | str], shards: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    raw, split, said, scored = shards.parent / "demo-raw", ("--split", "train"), [], []
    for name, model in doors.items():
        scored.append(_done(command("launch/evaluate.py", model, f"data.shards={shards}", *split)))
        out = tmp_path / f"{name}.jsonl"
        _done(command("launch/caption.py", model, shards, *split, "--out", out, "data.workers=0"))
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        pictures = [raw / row["image"] for row in rows]
        assert len(rows) % BATCH == 0, "a rest would be captioned in other company than it was scored in"
        options = ("--json", "--batch", BATCH, "--device", "cpu")
        told = json.loads(_done(command("tools/caption.py", model, *pictures, *options)))
        loaded = imgcap.load(model, "cpu")
        called = loaded.caption(pictures, batch_size=BATCH)
        alone = loaded.caption(pictures[0])[0].text
        assert f'aria-label="{alone}"' in Page({"m": loaded}, Limits()).answer(str(pictures[0]), {})
        said += [[row["caption"] for row in rows], [entry["caption"] for entry in told]]
        said += [[caption.text for caption in called]]
        assert [entry["score"] for entry in told] == [caption.score for caption in called]
        assert [row["score"] for row in rows] == [round(caption.score, 4) for caption in called]
    results = json.loads((doors["run"] / "results" / "demo-train-captions.json").read_text())
    said.append([entry["caption"] for entry in results])
    assert all(captions == said[0] for captions in said) and len(set(said[0])) > 10
    assert "precision:bf16" in scored[0] and scored == scored[:1] * 3


def test_a_model_is_in_its_own_precision_whatever_else_is_loaded(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "tf32")
    other = open_trained(tmp_path / "tf32", overrides=["train.precision=tf32"])
    loaded = open_trained(run)
    for model, dtype, matmul in ((loaded, torch.bfloat16, "highest"), (other, torch.float32, "high")) * 2:
        with model.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
            assert torch.get_float32_matmul_precision() == matmul
    with loaded.autocast():
        pass  # as the other tests expect it


def _done(ended: Any) -> str:
    assert ended.returncode == 0, ended.stderr
    return str(ended.stdout)
