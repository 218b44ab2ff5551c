"""Captured steps compute what plain ones do: here as far as a CPU has them, on a GPU as graphs (`tests/gpu`)."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from imgcap.config.engine import EngineConfig
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.data.keyed_random import coins
from imgcap.errors import UserError
from imgcap.models.captioner import build_captioner
from imgcap.models.kernels.graphs import Graph, NotCaptured
from imgcap.ranks.world import World, init_ranks
from imgcap.training.engines.build import build_engine
from imgcap.training.engines.captured import CapturedEngine
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.protocol import Step, numbers_on
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.optim.ema import WeightAverage
from imgcap.types import EOS, PAD, SOS, Batch, Forcing, StepInputs

CPU = World(0, 1, 0, torch.device("cpu"))
WORDS, T = 20, 7
SMALL = {"embed_dim": 16, "hidden_dim": 24, "attention_dim": 16}
DECODERS = {
    "classic": {},
    "deep": {"output": "deep", "gate": False, "layers": 2, "dropout": 0.3},
    "after": {"query": "after"},
    "dot": {"query": "after", "attention": "dot"},
    "lstm": {"type": "lstm", "image_layers": 1},
    "transformer": {"type": "transformer", "width": 16, "heads": 2, "layers": 2, "feedforward": 24, "dropout": 0.3},
}


class Run:
    """A model with an engine of its own, its optimiser's average, and steps over batches of random images."""

    def __init__(
        self,
        kind,
        decoder="classic",
        forcing=None,
        train="none",
        world=CPU,
        micro_batches=2,
        exchange="fp32",
        **settings,
    ):
        torch.manual_seed(0)
        encoder = EncoderConfig(name="resnet18", weights=None, train=train)
        model = build_captioner(ModelConfig(encoder=encoder, decoder=SMALL | DECODERS[decoder]), WORDS)
        config = TrainConfig(**{"label_smoothing": 0.1, "attention_penalty": 0.5, "ema": 0.9, **settings})
        self.engine = kind(
            EngineConfig(exchange=exchange), CrossEntropy(model, config), config, OptimConfig(lr=3e-3), world
        )
        self.average = WeightAverage(self.engine.raw_model, config.ema)
        self.forcing, self.world, self.micro_batches = forcing, world, micro_batches

    def inputs(self, batch, numbers):
        if self.forcing is None:
            return StepInputs(None, True)
        coins_BKT = coins(0, numbers.step, batch.image_ids, *batch.tokens_BKT.shape[1:])
        return StepInputs(Forcing(numbers.ratio, coins_BKT, self.forcing == "two_pass"), True)

    def batch(self, number):
        random = torch.Generator().manual_seed(number * self.world.world_size + self.world.rank)
        tokens_BKT = torch.randint(4, WORDS, (2, 2, T), generator=random)
        tokens_BKT[..., 0], tokens_BKT[..., 3 + number % 3] = SOS, EOS
        tokens_BKT[..., 4 + number % 3 :] = PAD
        images_BCHW = torch.randint(0, 256, (2, 3, 32, 32), generator=random, dtype=torch.uint8)
        return Batch(images_BCHW, tokens_BKT, torch.arange(2))

    def step(self, number, factor=None):
        """One step; returns losses, the gradient's norm, what was skipped, and all weights."""
        batches = [self.batch(number * self.micro_batches + m) for m in range(self.micro_batches)]
        tokens = sum((batch.tokens_BKT[..., 1:] != PAD).sum() for batch in batches) * self.world.world_size
        if factor is not None:
            tokens = tokens * factor
        numbers = numbers_on(self.world.device, number, 0.5, 1 / (1 + number))
        torch.manual_seed(number)
        step = Step(batches, numbers, lambda: tokens, self.inputs, self.forcing, self.average.update)
        losses, result = self.engine.run(step)
        computed = [value.clone() for loss in losses for value in loss] + [value.clone() for value in result]
        weights = [*self.engine.raw_model.state_dict().values(), *self.average.to_evaluate().state_dict().values()]
        return computed + [weight.clone() for weight in weights]


def same(first, second, steps, **options):
    for number in range(steps):
        for found, expected in zip(first.step(number, **options), second.step(number, **options), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("forcing", [None, "in_turn", "two_pass"])
def test_a_captured_step_is_a_plain_one(decoder, forcing):
    same(Run(CapturedEngine, decoder, forcing), Run(DDPEngine, decoder, forcing), 4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("train", ["last_block", "all"])
def test_whatever_trains_in_whichever_precision(precision, train):
    settings = {"precision": precision, "train": train, "micro_batches": 1}
    same(Run(CapturedEngine, **settings), Run(DDPEngine, **settings), 3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gradient_that_is_not_finite_changes_nothing(precision):
    captured = Run(CapturedEngine, precision=precision)
    captured.step(0)
    before = [p.clone() for p in captured.engine.parameters]
    captured.step(1, factor=0.0)
    assert all(torch.equal(p, old) for p, old in zip(captured.engine.parameters, before, strict=True))
    plain = Run(DDPEngine, precision=precision)
    plain.step(0)
    plain.step(1, factor=0.0)
    for found, expected in zip(captured.step(2), plain.step(2), strict=True):
        assert torch.equal(found, expected)


def test_unfreezing_and_a_resumed_optimiser_capture_anew():
    captured, plain = Run(CapturedEngine), Run(DDPEngine)
    same(captured, plain, 2)
    for run in (captured, plain):
        run.engine.freeze_encoder(run.engine.raw_model.encoder.frozen_stages - 1)
        run.average = WeightAverage(run.engine.raw_model, 0.9)
    same(captured, plain, 2)
    captured.engine.load_state_dict(plain.engine.state_dict())
    same(captured, plain, 2)


def refuse(graph, calls=2):
    """A `Graph` whose capture fails, as that of a step which reads a number on the host."""
    graph.tries = getattr(graph, "tries", 0) + 1
    if graph.tries > calls:
        raise NotCaptured("operation not permitted when stream is capturing")
    return graph.function()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_cannot_be_captured_goes_on_plainly_and_says_so(precision, monkeypatch, capsys):
    monkeypatch.setattr(Graph, "__call__", refuse)
    same(Run(CapturedEngine, precision=precision), Run(DDPEngine, precision=precision), 5)
    said = capsys.readouterr().err
    assert said.count("train.capture: steps are launched kernel by kernel (operation not permitted") == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_part_of_a_step_cannot_be_captured_nothing_is_computed_twice(failing, monkeypatch, capsys):
    """The two parts of a step of several ranks, here of a world that has two and an exchange with nobody."""
    world = World(0, 2, 0, torch.device("cpu"))
    monkeypatch.setattr(CapturedEngine, "exchange", lambda engine: None)
    made = []

    def call(graph):
        if graph not in made:
            made.append(graph)
        return refuse(graph) if made.index(graph) == failing else graph.function()

    monkeypatch.setattr(Graph, "__call__", call)
    captured = Run(CapturedEngine, world=world, precision="fp16")
    monkeypatch.setattr(DDPEngine, "_wrap", lambda engine: engine.objective)
    same(captured, Run(DDPEngine, world=world, precision="fp16"), 5)
    assert capsys.readouterr().err.count("train.capture: steps are launched") == 1


def test_who_insists_on_capturing_is_told_what_hinders(monkeypatch):
    monkeypatch.setattr(Graph, "__call__", refuse)
    run = Run(CapturedEngine, capture="on")
    run.step(0), run.step(1)
    with pytest.raises(UserError, match=r"train\.capture=on.*not permitted.*set it to auto"):
        run.step(2)


@pytest.mark.parametrize(("name", "hindered"), [("ddp", "steps run on cpu"), ("deepspeed", "launches its own")])
def test_capturing_is_refused_where_it_cannot_be(name, hindered):
    config = TrainConfig(capture="on")
    objective = CrossEntropy(build_captioner(ModelConfig(encoder=EncoderConfig(weights=None)), WORDS), config)
    with pytest.raises(UserError, match=hindered):
        build_engine(EngineConfig(name=name), objective, config, OptimConfig(), CPU)


def compare_ranks():
    """What each of several ranks runs: captured steps, which exchange one tensor, beside those of DDP's buckets."""
    torch.set_num_threads(1)
    world = init_ranks("cpu")
    same(Run(CapturedEngine, world=world), Run(DDPEngine, world=world), 3)
    same(Run(CapturedEngine, world=world, exchange="bf16"), Run(DDPEngine, world=world, exchange="bf16"), 3)


@pytest.mark.dist
@pytest.mark.slow
def test_two_ranks_exchange_one_tensor_and_compute_the_same(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    checkout = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    ended = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]


if __name__ == "__main__":
    from imgcap.errors import exits_cleanly

    exits_cleanly(partial(compare_ranks))()
