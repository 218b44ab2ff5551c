"""One run is the same run on any number of ranks, workers and accumulation steps, and across a kill -9."""

import signal
import time

import pytest
import torch
from launched import TRANSFORMER, done, whole_and_killed
from safetensors.torch import load_file

pytestmark = [pytest.mark.dist, pytest.mark.slow]

FIXED = ["model.decoder.dropout=0", "train.teacher_forcing.start=0.8", "train.teacher_forcing.end=0.5"]
FIXED += ["train.teacher_forcing.schedule=linear", "train.max_steps=50", "train.attention_penalty=0.5"]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    return tmp_path_factory.mktemp("one") / "run"


@pytest.mark.parametrize(
    "ranks, micro_batch, sampling",
    [(2, "2", "in_turn"), (2, "2", "two_pass"), pytest.param(4, "null", "in_turn", marks=pytest.mark.exhaustive)],
)
def test_a_transformer_is_the_same_run_at_any_scale(tmp_path, launch, metrics, ranks, micro_batch, sampling):
    settings = [*TRANSFORMER, *FIXED, f"train.teacher_forcing.sampling={sampling}", "train.max_steps=12"]
    done(launch(tmp_path / "one", *settings))
    done(launch(tmp_path / "more", *settings, f"train.micro_batch={micro_batch}", ranks=ranks))
    expected, found = metrics(tmp_path / "one"), metrics(tmp_path / "more")
    assert sorted(found) == list(range(1, 13))
    for step in expected:
        assert found[step]["train/batch_hash"] == expected[step]["train/batch_hash"]
        assert found[step]["train/loss"] == pytest.approx(expected[step]["train/loss"], rel=1e-4)


def test_a_transformer_that_stops_goes_on_to_the_very_same_weights(tmp_path, launch, metrics):
    settings = [*TRANSFORMER, "model.encoder.train=layer3", "optim.layer_decay=0.5", "train.ema=0.9"]
    settings += ["train.teacher_forcing.start=0.7", "train.teacher_forcing.end=0.7", "optim.schedule=constant"]
    done(launch(tmp_path / "whole", *settings, "train.max_steps=8"))
    done(launch(tmp_path / "parts", *settings, "train.max_steps=5"))
    done(launch(tmp_path / "parts", *settings, "train.max_steps=8"))
    losses = [{step: line["train/loss"] for step, line in metrics(tmp_path / n).items()} for n in ("whole", "parts")]
    assert losses[0] == losses[1] and sorted(losses[0]) == list(range(1, 9))
    saved = [load_file(tmp_path / n / "checkpoints/step-00000008/model.safetensors") for n in ("whole", "parts")]
    assert all(torch.equal(weight, saved[1][name]) for name, weight in saved[0].items())


@pytest.mark.parametrize(
    "ranks, workers, micro_batch",
    [(2, 2, "null"), pytest.param(4, 0, "null", marks=pytest.mark.exhaustive), (1, 2, "4"), (2, 0, "2")],
    ids=str,
)
def test_batches_and_losses_are_the_same_at_any_scale(tmp_path, one_rank, launch, metrics, ranks, workers, micro_batch):
    if not one_rank.exists():
        done(launch(one_rank, *FIXED))
    overrides = [f"data.workers={workers}", f"train.micro_batch={micro_batch}"]
    done(launch(tmp_path / "run", *FIXED, *overrides, ranks=ranks))
    expected, found = metrics(one_rank), metrics(tmp_path / "run")
    assert sorted(found) == list(range(1, 51))
    for step in expected:
        assert found[step]["train/batch_hash"] == expected[step]["train/batch_hash"]
        assert found[step]["train/images"] == expected[step]["train/images"]
        assert found[step]["train/loss"] == pytest.approx(expected[step]["train/loss"], rel=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("decoder", [[], TRANSFORMER], ids=["lstm", "transformer"])
def test_a_killed_run_resumes_to_the_very_same_weights(tmp_path, launch, metrics, decoder):
    settings = [*decoder, "train.max_steps=40", "data.workers=2", "checkpoint.every=6", "model.encoder.train=all"]
    settings += ["train.teacher_forcing.start=0.7", "train.teacher_forcing.end=0.7"]
    whole, killed = (metrics(run) for run in whole_and_killed(tmp_path, launch, settings))
    assert sorted(killed) == sorted(whole) == list(range(1, 41))
    for step in whole:
        assert killed[step]["train/batch_hash"] == whole[step]["train/batch_hash"]
        assert killed[step]["train/loss"] == whole[step]["train/loss"]
    weights = [
        load_file(tmp_path / name / "checkpoints/step-00000040/model.safetensors") for name in ("whole", "killed")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_sigterm_saves_leaves_a_marker_and_exits_75(tmp_path, launch, metrics):
    process = launch(tmp_path / "run", "train.max_steps=100000", "data.workers=2", wait=False)
    lines = tmp_path / "run" / "metrics.jsonl"
    while not lines.exists() or not lines.read_text().count("\n") > 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (tmp_path / "run" / "PREEMPTED").exists()
    last = max(metrics(tmp_path / "run"))
    done(launch(tmp_path / "run", f"train.max_steps={last + 3}"))
    assert not (tmp_path / "run" / "PREEMPTED").exists()
    assert sorted(metrics(tmp_path / "run")) == list(range(1, last + 4))
