"""launch/train.py as a user meets it: dry runs, the debug mode, a run that is already finished."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def many_words(tmp_path_factory):
    """A shard set whose captions hold 5,000 different words, more than a vocabulary of 4,096 takes."""
    folder = tmp_path_factory.mktemp("words")
    rows = ["image,caption"]
    for image in range(10):
        Image.new("RGB", (32, 32), (image * 20, 0, 0)).save(folder / f"{image}.jpg")
        for caption in range(5):
            first = (image * 5 + caption) * 100
            rows.append(f"{image}.jpg," + " ".join(f"{_word(n)}" for n in range(first, first + 100)))
    (folder / "captions.txt").write_text("\n".join(rows) + "\n")
    (folder / "Flickr_8k.trainImages.txt").write_text("".join(f"{image}.jpg\n" for image in range(9)))
    (folder / "Flickr_8k.devImages.txt").write_text("9.jpg\n")
    command = [sys.executable, "tools/build_shards.py", "flickr8k", "--images", folder, "--splits", folder]
    command += ["--captions", folder / "captions.txt", "--out", folder / "shards", "--workers", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "shards"


def _word(number):
    return "".join("abcdefghij"[int(digit)] for digit in f"{number:05d}")


@pytest.mark.parametrize(
    "config, trainable, frozen",
    [("imgcap_attention", 36_722_689, 23_508_032), ("imgcap_lstm", 29_383_680, 23_508_032)],
)
def test_the_parameters_of_the_imgcap_models(many_words, tmp_path, config, trainable, frozen):
    command = [sys.executable, "launch/train.py", "--config", f"configs/{config}.yaml", "--dry-run"]
    command += [f"data.shards={many_words}", f"run_dir={tmp_path / 'run'}", "model.encoder.weights=none"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["parameters"] == {"total": trainable + frozen, "trainable": trainable, "frozen": frozen}
    assert (found["images"], found["global_batch"], found["steps_per_epoch"]) == (9, 128, 1)
    assert not (tmp_path / "run").exists(), "a dry run writes nothing"


def test_the_debug_mode_prints_shapes_and_ends(launch, tmp_path):
    result = launch(tmp_path / "run", "data.image_size=64", options=["--debug"])
    assert result.returncode == 0, result.stderr
    assert "encoder (Encoder): (uint8[4, 3, 64, 64]) -> float32[4, 4, 512]" in result.stderr
    assert "step 10/10" in result.stderr
    assert (tmp_path / "run-debug" / "checkpoints").is_dir()


def test_a_finished_run_says_so_and_trains_no_step_twice(launch, tmp_path):
    first = launch(tmp_path / "run", "train.max_steps=3")
    assert first.returncode == 0, first.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = launch(tmp_path / "run", "train.max_steps=3")
    assert again.returncode == 0 and "is finished" in again.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_starting_anew_sets_the_older_run_aside(launch, tmp_path):
    launch(tmp_path / "run", "train.max_steps=2")
    anew = launch(tmp_path / "run", "train.max_steps=1", "seed=5", options=["--resume", "no"])
    assert anew.returncode == 0, anew.stderr
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("run.")]
    assert len(aside) == 1 and (aside[0] / "checkpoints" / "step-00000002").is_dir()
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["latest", "step-00000001"]


def test_a_checkpoint_of_other_words_is_refused(launch, tmp_path):
    """Also where another run's is named, which the new run's own folder knows nothing of."""
    assert launch(tmp_path / "one", "train.max_steps=1", "vocab.size=30").returncode == 0
    options = ["--resume", str(tmp_path / "one"), "--change", "vocab.size"]
    refused = launch(tmp_path / "two", "train.max_steps=2", "vocab.size=29", options=options)
    assert refused.returncode == 2 and "is not the one in" in refused.stderr and not (tmp_path / "two").exists()


def test_early_stopping_ends_a_run(launch, tmp_path):
    settings = ["eval.every=2", "train.early_stopping.metric=loss", "train.early_stopping.patience=1"]
    settings += ["train.early_stopping.min_delta=100", "train.max_steps=50"]
    result = launch(tmp_path / "run", *settings)
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 4
    assert (tmp_path / "run" / "checkpoints" / "best").read_text().strip() == "step-00000002"


def test_the_environment_report_names_versions_devices_and_settings(launch, tmp_path):
    result = launch(tmp_path / "run", options=["--env"], extra={"NCCL_DEBUG": "WARN"})
    assert result.returncode == 0, result.stderr
    facts = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert ["torch", torch.__version__] in facts and ["setting", "NCCL_DEBUG=WARN"] in facts
    assert {"python", "deepspeed", "processors", "CUDA", "backends"} <= {fact[0] for fact in facts}
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_a_batch_is_overfitted(launch, tmp_path):
    settings = ["model.decoder.hidden_dim=64", "model.decoder.embed_dim=64", "model.encoder.train=all"]
    healthy = launch(tmp_path / "run", *settings, options=["--overfit", "4"])
    assert healthy.returncode == 0, healthy.stderr
    assert healthy.stdout.startswith("--overfit: the batch is overfitted, loss 0.0")
    assert (tmp_path / "run-overfit").is_dir() and not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_a_batch_that_can_t_be_learned_is_told(launch, tmp_path):
    ill = launch(tmp_path / "run", "model.decoder.hidden_dim=1", options=["--overfit", "4"])
    assert ill.returncode == 2 and "the loss of one batch is still" in ill.stderr.splitlines()[-1]


@pytest.mark.dist
def test_a_profile_is_a_trace_of_the_steps_asked_for(launch, tmp_path):
    traced = launch(tmp_path / "run", "train.max_steps=8", options=["--profile", "2"], ranks=2)
    assert traced.returncode == 0, traced.stderr
    for rank in (0, 1):
        trace = json.loads((tmp_path / f"run/profile/rank-{rank}.pt.trace.json").read_text())
        steps = {event["name"] for event in trace["traceEvents"] if event["name"].startswith("ProfilerStep#")}
        assert steps == {"ProfilerStep#3", "ProfilerStep#4"}
        assert any(event["name"] == "aten::linear" or "conv" in event["name"] for event in trace["traceEvents"])
    short = launch(tmp_path / "short", "train.max_steps=4", options=["--profile", "2"])
    assert short.returncode == 2 and "--profile 2 takes 5 steps" in short.stderr
