"""The average of the weights: its formula, and a run that evaluates, saves and resumes with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from imgcap.training.optim.ema import WeightAverage


def test_the_average_follows_weights_and_statistics_and_soon_forgets_the_first():
    model = nn.BatchNorm1d(3)
    average = WeightAverage(model, 0.6)
    expected = {name: value.detach().clone().float() for name, value in model.state_dict().items()}
    for step in range(1, 9):
        with torch.no_grad():
            model.weight.fill_(float(step))
        model(torch.randn(4, 3))
        average.update()
        decay = min(0.6, (1 + step) / (10 + step))
        expected = {name: decay * value + (1 - decay) * model.state_dict()[name] for name, value in expected.items()}
        if step == 4:  # as after a resume
            again = WeightAverage(model, 0.6)
            again.load(average.to_evaluate().state_dict(), 4)
            average = again
    found = average.to_evaluate()
    for name in ("weight", "running_mean", "running_var"):
        torch.testing.assert_close(getattr(found, name).detach(), expected[name])
    assert WeightAverage(model, None).to_evaluate() is model and WeightAverage(model, None).training_weights() == {}


@pytest.mark.dist
@pytest.mark.slow
def test_ranks_evaluate_the_average_that_is_saved(tmp_path, launch, command):
    """BatchNorm's statistics, which each rank has of its own images, are rank 0's in the average too."""
    run = tmp_path / "run"
    settings = ["train.ema=0.5", "train.max_steps=6", "model.encoder.train=all", "eval.metrics=[BLEU]", "optim.lr=1e-2"]
    ended = launch(run, *settings, ranks=2)
    assert ended.returncode == 0, ended.stderr
    in_training = json.loads((run / "results/val-scores.json").read_text())
    scored = command("imgcap", "evaluate", run, "--split", "val")
    assert scored.returncode == 0, scored.stderr
    by_itself = json.loads((run / "results/val-scores.json").read_text())
    assert by_itself["loss"] == pytest.approx(in_training["loss"], rel=1e-6)


@pytest.mark.exhaustive
@pytest.mark.dist
@pytest.mark.slow
def test_a_run_with_an_average_saves_it_and_goes_on_exactly(tmp_path, launch, metrics):
    settings = ["train.ema=0.9", "train.max_steps=20", "checkpoint.every=10", "model.encoder.train=all"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    ended = launch(whole, *settings, ranks=2)
    assert ended.returncode == 0, ended.stderr
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints/step-00000020")
    ended = launch(run, *settings, ranks=2)
    assert ended.returncode == 0, ended.stderr
    saved = [folder / "checkpoints/step-00000020" for folder in (whole, run)]
    weights, again = (load_file(folder / "model.safetensors") for folder in saved)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    trained = torch.load(saved[0] / "training.pt", weights_only=True)["weights"]
    name = "decoder.output.weight"
    assert trained.keys() == weights.keys() and not torch.equal(trained[name], weights[name])
    assert [line["train/loss"] for line in metrics(run).values()] == [
        line["train/loss"] for line in metrics(whole).values()
    ]
    refused = launch(run, *settings, "engine.name=deepspeed", "engine.zero_stage=3")
    assert refused.returncode == 2 and "engine.zero_stage" in refused.stderr
