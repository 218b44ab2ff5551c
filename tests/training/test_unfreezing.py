"""Gradual unfreezing: what trains at which step, in the log and in the weights, also after a resume."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from imgcap.config.load import load_config
from imgcap.errors import UserError
from imgcap.models.encoders.base import Encoder
from imgcap.training.unfreezing import Unfreezing

STEPS = 5
SETTINGS = ["model.encoder.train=none", "train.unfreeze={layer4: 1, layer3: 3, all: 4}", f"train.max_steps={STEPS}"]
SETTINGS += ["checkpoint.every=1", "checkpoint.keep=9", "optim.encoder_lr=1e-3", "train.ema=0.5", "eval.every=3"]
LIGHTER = ["checkpoint.every=2", "train.ema=null", "eval.every=0"]
FROZEN = [5, 4, 4, 3, 0]  # stages, in each step


def weights(run, step):
    return load_file(run / f"checkpoints/step-{step:08d}/model.safetensors")


def training(run, step):
    return torch.load(run / f"checkpoints/step-{step:08d}/training.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("unfreezing")


@pytest.fixture
def whole(runs, launch):
    """A run that never stopped, on so many ranks; made once, with what it said."""

    def train(ranks):
        run = runs / f"whole-{ranks}"
        if not run.exists():
            ended = launch(run, *SETTINGS, *(LIGHTER if ranks > 1 else ()), ranks=ranks)
            assert ended.returncode == 0, ended.stderr
            run.with_suffix(".log").write_text(ended.stderr)
        return run

    return train


@pytest.fixture(scope="module")
def encoder():
    return Encoder(load_config(None, ["model.encoder={name: resnet18, weights: none}"]).model.encoder)


def test_the_trainable_set_changes_at_exactly_these_steps(whole, metrics, encoder):
    run = whole(1)
    logged = {step: line["optim/trainable_parameters"] for step, line in metrics(run).items()}
    decoder = logged[1]
    expected = []
    for frozen in FROZEN:
        encoder.freeze(frozen)
        expected.append(decoder + sum(p.numel() for p in encoder.parameters() if p.requires_grad))
    assert [logged[step] for step in range(1, STEPS + 1)] == expected
    said = [line for line in run.with_suffix(".log").read_text().splitlines() if "the encoder trains from" in line]
    assert [line.split(", ")[0] for line in said] == [
        "step 2: the encoder trains from layer4 on",
        "step 4: the encoder trains from layer3 on",
        "step 5: the encoder trains from stem on",
    ]
    assert said[0].endswith(f"{expected[1]:,} parameters in all")


def test_weights_move_from_the_first_step_that_trains_them(whole, encoder):
    run = whole(1)
    for step in range(2, STEPS + 1):
        before, after = (training(run, number)["weights"] for number in (step - 1, step))
        moved = {
            name.split(".")[2] for name in after if "backbone" in name and not torch.equal(after[name], before[name])
        }
        training_stages = list(encoder.stages.values())[FROZEN[step - 1] :]
        assert moved == {name.split(".")[0] for stage in training_stages for name in stage.parameters}
    steps = {name: state["step"] for name, state in training(run, STEPS)["optimizer"].items()}
    stage = "encoder.backbone.{}.1.conv1.weight"
    assert steps[stage.format("layer4")] == 4 and steps[stage.format("layer1")] == 1
    assert steps["decoder.output.weight"] == STEPS


@pytest.mark.parametrize(
    "ranks, step", [(1, 2), (1, 3), pytest.param(2, 2, marks=[pytest.mark.dist, pytest.mark.exhaustive])], ids=str
)
def test_a_run_that_resumes_at_any_step_ends_at_the_same_weights(tmp_path, launch, whole, metrics, ranks, step):
    expected, run = whole(ranks), tmp_path / "run"
    settings = [*SETTINGS, *(LIGHTER if ranks > 1 else ()), "checkpoint.every=0"]
    ended = launch(run, *settings, ranks=ranks, options=["--resume", expected / f"checkpoints/step-{step:08d}"])
    assert ended.returncode == 0, ended.stderr
    found, wanted = (metrics(folder) for folder in (run, expected))
    for number in range(step + 1, STEPS + 1):
        for name in ("train/loss", "train/grad_norm", "optim/trainable_parameters"):
            assert found[number][name] == wanted[number][name]
    # The average's last evaluation also shows that it sees its own weights, not a copy from when they were frozen.
    losses = [[line["val/loss"] for line in lines(folder) if "val/loss" in line][-1] for folder in (run, expected)]
    assert losses[0] == losses[1]
    for name, weight in weights(expected, STEPS).items():
        assert torch.equal(weights(run, STEPS)[name], weight), name
    optimizer = training(run, STEPS)["optimizer"]
    for name, state in training(expected, STEPS)["optimizer"].items():
        assert optimizer[name]["step"] == state["step"]
        assert torch.equal(optimizer[name]["exp_avg_sq"], state["exp_avg_sq"])


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@given(st.integers(1, 50), st.integers(0, 5), st.integers(1, 4), st.integers(0, 400))
def test_the_set_is_a_function_of_the_step(encoder, epoch, first, apart, step):
    schedule = {"layer4": f"{first}ep", "layer3": f"{(first + apart) * epoch}", "all": f"{first + 2 * apart}ep"}
    expected = 5 - (step >= first * epoch) - (step >= (first + apart) * epoch)
    frozen = 0 if step >= (first + 2 * apart) * epoch else expected
    assert Unfreezing(schedule, 5, epoch, encoder.frozen_before).frozen_at(step) == frozen


@pytest.mark.parametrize(
    "schedule, frozen, named",
    [
        ({"layer3": "2ep", "layer4": "4ep"}, 5, "layer4=4ep"),
        ({"layer4": "2ep"}, 4, "layer4=2ep"),
        ({"all": "1"}, 0, "all"),
    ],
)
def test_what_trains_already_cannot_begin_to(encoder, schedule, frozen, named):
    with pytest.raises(UserError, match=named):
        Unfreezing(schedule, frozen, 10, encoder.frozen_before)


def test_a_stage_that_the_encoder_lacks(encoder):
    with pytest.raises(UserError, match=r"train\.unfreeze\.layer5.* the nearest is 'layer4'"):
        Unfreezing({"layer5": "2ep"}, 5, 10, encoder.frozen_before)
    with pytest.raises(UserError, match=r"model\.encoder\.train: resnet18 has no stage 'last'.*none, last_block, all"):
        Encoder(load_config(None, ["model.encoder={name: resnet18, weights: none, train: last}"]).model.encoder)


def test_what_the_configuration_refuses():
    with pytest.raises(UserError, match=r"set engine\.name to ddp"):
        load_config(None, ["train.unfreeze.layer4=2ep", "engine.name=deepspeed"])
    with pytest.raises(UserError, match="no duration"):
        load_config(None, ["train.unfreeze.layer4=two"])
