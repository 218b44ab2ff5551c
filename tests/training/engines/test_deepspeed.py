"""DeepSpeed's engine trains as DDP does, at every ZeRO stage, and each goes on from what the other saved."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

deepspeed = pytest.importorskip("deepspeed")

from imgcap.config.engine import EngineConfig  # noqa: E402
from imgcap.config.training import TrainConfig  # noqa: E402
from imgcap.errors import UserError  # noqa: E402
from imgcap.training.engines.deepspeed_config import deepspeed_config  # noqa: E402
from imgcap.training.engines.loss_scale import GROWTH_EVERY, LossScale  # noqa: E402

CHECKOUT = Path(__file__).parents[3]
STEPS = 30
FIXED = ["model.decoder.dropout=0", f"train.max_steps={STEPS}", "checkpoint.every=15", "train.attention_penalty=0.5"]
ENGINES = {"ddp": [], **{f"zero{stage}": ["engine.name=deepspeed", f"engine.zero_stage={stage}"] for stage in range(4)}}


def losses(metrics, run):
    return [values["train/loss"] for _, values in sorted(metrics(run).items())]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(runs, launch):
    """The folder of a 30-step run of an engine on two ranks, made once."""

    def train(engine, *overrides):
        run = runs / "-".join([engine, *overrides]).replace("/", "_")
        if not run.exists():
            ended = launch(run, *FIXED, *ENGINES[engine], *overrides, ranks=2)
            assert ended.returncode == 0, ended.stderr
        return run

    return train


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", ["zero1", "zero3", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("zero0", "zero2"))]
)
def test_every_stage_has_the_losses_of_ddp(trained, metrics, engine):
    expected, found = losses(metrics, trained("ddp")), losses(metrics, trained(engine))
    assert len(found) == STEPS and found == pytest.approx(expected, rel=1e-4)
    weights = [load_file(trained(name) / "checkpoints/step-00000030/model.safetensors") for name in ("ddp", engine)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero1", pytest.param("zero3", marks=pytest.mark.exhaustive)])
def test_a_transformer_with_rates_by_stage_has_the_losses_of_ddp(tmp_path, launch, metrics, engine):
    settings = ["model.decoder={type: transformer, width: 16, heads: 2, feedforward: 24, dropout: 0}"]
    settings += ["model.encoder.train=layer3", "optim.layer_decay=0.5", "train.max_steps=6", "train.global_batch=8"]
    for name in ("ddp", engine):
        ended = launch(tmp_path / name, *settings, *ENGINES[name], ranks=2)
        assert ended.returncode == 0, ended.stderr
    expected, found = (losses(metrics, tmp_path / name) for name in ("ddp", engine))
    assert len(found) == 6 and found == pytest.approx(expected, rel=1e-4)


@pytest.mark.exhaustive
@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("saved_by, engine, ranks", [("ddp", "zero2", 2), ("zero3", "ddp", 1), ("zero1", "zero3", 3)])
def test_a_run_goes_on_with_another_engine_on_other_ranks(tmp_path, trained, launch, metrics, saved_by, engine, ranks):
    run = tmp_path / "run"
    shutil.copytree(trained(saved_by, "train.global_batch=12"), run)
    shutil.rmtree(run / "checkpoints/step-00000030")
    settings = [*FIXED, *ENGINES[engine], "train.global_batch=12"]
    ended = launch(run, *settings, ranks=ranks)
    assert ended.returncode == 0, ended.stderr
    expected, found = losses(metrics, trained("ddp", "train.global_batch=12")), losses(metrics, run)
    assert found == pytest.approx(expected, rel=1e-4)
    hashes = [[line["train/batch_hash"] for line in metrics(path).values()] for path in (run, trained(saved_by))]
    assert len(hashes[0]) == STEPS


@pytest.mark.exhaustive
@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero1", "zero3"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_accumulates_as_ddp_does(trained, metrics, engine, precision):
    settings = (f"train.precision={precision}", "train.micro_batch=2")
    expected, found = losses(metrics, trained("ddp", *settings)), losses(metrics, trained(engine, *settings))
    assert found == pytest.approx(expected, rel=0.02)
    assert found[-1] < found[0]


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.exhaustive
def test_evaluation_reads_the_whole_model(trained, metrics):
    scores = []
    for engine in ("ddp", "zero3"):
        run = trained(engine, "eval.every=30", "eval.metrics=[BLEU]")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        scores.append([line["val/loss"] for line in lines if "val/loss" in line])
    assert len(scores[0]) == 1 and scores[1] == pytest.approx(scores[0], rel=1e-4)


@pytest.mark.exhaustive
@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("ninja") and shutil.which("g++")), reason="DeepSpeed compiles its CPU optimiser")
def test_its_own_launcher_starts_it_with_the_optimiser_on_the_host(tmp_path, launch, trained, metrics):
    settings = [*FIXED, *ENGINES["zero2"], "engine.offload=cpu", "train.max_steps=5"]
    _, *arguments = launch(tmp_path / "run", *settings, show=True)
    command = [Path(sys.executable).with_name("deepspeed"), "--num_gpus", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    expected = losses(metrics, trained("ddp", "train.max_steps=5"))
    assert losses(metrics, tmp_path / "run") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "raw, message",
    [
        ({"fp16": {"enabled": True}}, "engine.deepspeed.fp16 is set by train.precision"),
        ({"communication_data_type": "bf16"}, "engine.deepspeed.communication_data_type is set by engine.exchange"),
        ({"zero_optimization": {"stage": 3}}, "engine.deepspeed.zero_optimization.stage is set by engine.zero_stage"),
        ({"zero_optimisation": {}}, "unknown key engine.deepspeed.zero_optimisation; the nearest one is zero_opti"),
        ({"zero_optimization": {"reduce_bucket": 1}}, "the nearest one is zero_optimization.reduce_bucket_size"),
        ({"zero_optimization": 3}, "a mapping of keys to values"),
    ],
)
def test_a_raw_section_that_is_unknown_or_contradicts_is_refused(raw, message):
    with pytest.raises(UserError, match=message):
        deepspeed_config(EngineConfig(name="deepspeed", deepspeed=raw), TrainConfig())


def test_a_raw_section_adds_to_the_configuration():
    raw = {"wall_clock_breakdown": True, "zero_optimization": {"reduce_bucket_size": 1000}}
    made = deepspeed_config(EngineConfig(name="deepspeed", zero_stage=2, offload="cpu", deepspeed=raw), TrainConfig())
    assert made["wall_clock_breakdown"] and made["gradient_clipping"] == 5.0
    assert made["zero_optimization"] == {
        "stage": 2,
        "offload_optimizer": {"device": "cpu"},
        "reduce_bucket_size": 1000,
    }


def test_the_loss_scale_moves_as_torch_s_does():
    ours, torch_s = LossScale(enabled=True), torch.amp.GradScaler("cpu")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for step in range(GROWTH_EVERY + 10):
        skipped = step in (2, 5, 6)
        weight.grad = torch.full((1,), float("inf") if skipped else 1.0)
        torch_s.scale(torch.ones(()))
        torch_s.step(optimizer)
        torch_s.update()
        ours.update(skipped)
        assert ours.scale == torch_s.get_scale()
