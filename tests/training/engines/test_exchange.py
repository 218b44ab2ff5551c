"""Gradients exchanged in bfloat16: close to those in float32, the same on all ranks, and a bad one is bad on all."""

import json
import os
from pathlib import Path

import pytest
import torch

from imgcap.config.engine import EngineConfig
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.models.captioner import build_captioner
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.objectives.cross_entropy import CrossEntropy

CHECKOUT = Path(__file__).parents[3]
STEPS = 20
FIXED = ["model.decoder.dropout=0", f"train.max_steps={STEPS}"]


@pytest.fixture(scope="module", params=[2, 3])
def found(request, warm):
    """What each of so many ranks has seen."""
    script = Path(__file__).with_name("exchange_ranks.py")
    ended = warm[False].run([script], CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"}, request.param)
    assert ended.returncode == 0, ended.stderr
    ranks = json.loads(ended.stdout)
    assert len(ranks) == request.param
    return ranks


@pytest.mark.dist
def test_an_average_is_as_exact_as_its_format(found):
    for rank in found:
        expected = {"within_rounding": True, "rounded": True, "same_on_all": True}
        assert rank["flat"] == {"torch.float32": expected, "torch.bfloat16": expected}


@pytest.mark.dist
def test_a_step_s_gradients_are_close_and_its_weights_the_same_on_all_ranks(found):
    for rank in found:
        assert 1e-4 < rank["steps"]["error"] < 2**-8
        assert rank["steps"]["same_weights_on_all"]


@pytest.mark.dist
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_bad_gradient_of_one_rank_skips_the_step_of_all(found, precision):
    scaled_by = 0.5 if precision == "fp16" else 1.0
    expected = {"skipped": 1.0, "kept": True, "scaled_by": scaled_by, "skipped_after": 0.0}
    assert [rank[precision] for rank in found] == [[expected] * 2] * len(found)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, *(pytest.param(stage, marks=pytest.mark.exhaustive) for stage in (0, 2, 3))])
def test_deepspeed_exchanges_in_bfloat16_too(tmp_path, launch, metrics, stage):
    pytest.importorskip("deepspeed")
    losses = {}
    for exchange in ("fp32", "bf16"):
        settings = [*FIXED, "engine.name=deepspeed", f"engine.zero_stage={stage}", f"engine.exchange={exchange}"]
        ended = launch(tmp_path / exchange, *settings, ranks=2)
        assert ended.returncode == 0, ended.stderr
        losses[exchange] = [line["train/loss"] for _, line in sorted(metrics(tmp_path / exchange).items())]
    assert len(losses["bf16"]) == STEPS and losses["bf16"][0] == losses["fp32"][0]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)


def test_one_rank_exchanges_nothing():
    train = TrainConfig()
    objective = CrossEntropy(build_captioner(ModelConfig(encoder=EncoderConfig(weights=None)), 20), train)
    world = World(0, 1, 0, torch.device("cpu"))
    assert DDPEngine(EngineConfig(exchange="bf16"), objective, train, OptimConfig(), world).wrapped is objective


def test_a_format_that_is_none_is_refused():
    with pytest.raises(ValueError, match="bf16"):
        EngineConfig(exchange="fp16")
