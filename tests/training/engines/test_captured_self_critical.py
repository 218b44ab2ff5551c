"""Captured self-critical steps compute what plain ones do, also where a run turns to them from cross-entropy."""

import numpy as np
import pytest
import torch

from imgcap.config.engine import EngineConfig
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.models.captioner import build_captioner
from imgcap.ranks.world import World
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.critic import Critic
from imgcap.training.engines.captured import CapturedEngine
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.protocol import Step, numbers_on
from imgcap.training.objectives.self_critical import SelfCritical
from imgcap.training.watched import Watched
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, Batch, StepInputs

CPU = World(0, 1, 0, torch.device("cpu"))
WORDS, T = 20, 7
SMALL = {"embed_dim": 16, "hidden_dim": 24, "attention_dim": 16}
DECODERS = {
    "deep": SMALL | {"output": "deep", "gate": False, "layers": 2, "dropout": 0.3},
    "after": SMALL | {"query": "after"},
    "lstm": {"type": "lstm", "embed_dim": 16, "hidden_dim": 24},
    "transformer": {"type": "transformer", "width": 16, "heads": 2, "layers": 2, "feedforward": 24, "dropout": 0.3},
}
TURN = 3  # steps of cross-entropy before
GPU = World(0, 1, 0, torch.device("cuda:0"))
CLOSE = {"fp32": 1e-4, "bf16": 2e-2}  # on a GPU


class Evenly:
    """Rewards a caption by how many of its tokens are even numbers."""

    digest = "0" * 64

    def __call__(self, images_N, captions_NL):
        return ((captions_NL % 2 == 0) & (captions_NL > EOS)).sum(1) / 3


class Run:
    """A model with an engine, whose steps are self-critical from TURN on."""

    def __init__(self, kind, decoder, world=CPU, train="none", **settings):
        torch.manual_seed(0)
        encoder = EncoderConfig(name="resnet18", weights=None, train=train)
        model = build_captioner(ModelConfig(encoder=encoder, decoder=DECODERS[decoder]), WORDS)
        drawing = {"samples": 3, "cross_entropy": 0.2, "baseline": settings.pop("baseline", "others")}
        config = TrainConfig(**{"objective": "self_critical", "self_critical": drawing, **settings})
        objective = SelfCritical(model, config, seed=5, longest=T - 2)
        self.engine = kind(EngineConfig(), objective, config, OptimConfig(lr=3e-3), world)
        words = Vocabulary([*SPECIAL_TOKENS, *map(str, range(WORDS - len(SPECIAL_TOKENS)))])
        self.critic = Critic(objective, Evenly(), Watched(words, "en", world.device), TURN, world)
        self.world = world

    def step(self, number):
        """One step of two micro-batches; returns the drawn captions, losses, what the update did, and all weights."""
        host = [self.batch(2 * number + m) for m in range(2)]
        tokens = sum((batch.tokens_BKT[..., 1:] != PAD).sum() for batch in host).to(self.world.device)
        batches = [Batch(*(tensor.to(self.world.device) for tensor in batch)) for batch in host]
        numbers = numbers_on(self.world.device, number, 1.0, 1.0)
        inputs = lambda batch, numbers: StepInputs(None, True)  # noqa: E731
        step = Step(batches, numbers, lambda: tokens, inputs, "true", lambda: None)
        if self.critic.has_begun(number):
            step = self.critic.step(self.engine, step, host, number, True)
        torch.manual_seed(number)
        losses, result = self.engine.run(step)
        drawn = [batch.tokens_BKT for batch in step.micro_batches]
        computed = [value.clone() for loss in losses for value in loss] + [value.clone() for value in result]
        return drawn, computed + [weight.clone() for weight in self.engine.raw_model.state_dict().values()]

    def batch(self, number):
        random = torch.Generator().manual_seed(number)
        tokens_BKT = torch.randint(4, WORDS, (2, 2, T), generator=random)
        tokens_BKT[..., 0], tokens_BKT[..., 4], tokens_BKT[..., 5:] = SOS, EOS, PAD
        images_BCHW = torch.randint(0, 256, (2, 3, 32, 32), generator=random, dtype=torch.uint8)
        return Batch(images_BCHW, tokens_BKT, torch.tensor([2 * number, 2 * number + 1]))


def same(captured, plain, close=0.0):
    for number in range(TURN + 5):
        (drawn, found), (expected_drawn, expected) = captured.step(number), plain.step(number)
        assert all(torch.equal(*pair) for pair in zip(drawn, expected_drawn, strict=True)), number
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=close, atol=close)
    assert captured.critic.watched.sums.tolist() == plain.critic.watched.sums.tolist()
    reward = captured.critic.watched.sums[1] / captured.critic.watched.sums[0]
    assert np.isfinite(reward) and reward > 0


@pytest.mark.parametrize(
    "decoder, settings",
    [
        ("deep", {}),
        ("after", {"baseline": "greedy"}),
        ("lstm", {"train": "last_block"}),
        ("transformer", {"train": "all", "precision": "bf16"}),
        ("transformer", {"precision": "fp16", "label_smoothing": 0.1}),
    ],
)
def test_a_captured_self_critical_step_is_a_plain_one(decoder, settings):
    same(Run(CapturedEngine, decoder, **settings), Run(DDPEngine, decoder, **settings))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("decoder", ["deep", "transformer"])
def test_on_a_gpu_too(decoder, precision):
    """In bfloat16 a word may be drawn differently where two kernels round differently: it is enough to go on alike."""
    runs = [Run(kind, decoder, world=GPU, precision=precision) for kind in (CapturedEngine, DDPEngine)]
    if precision == "fp32":
        return same(*runs, close=CLOSE[precision])
    for number in range(TURN + 5):
        (_, found), (_, expected) = (run.step(number) for run in runs)
        assert float(found[0]) == pytest.approx(float(expected[0]), rel=1.0, abs=5.0)
    rewards = [run.critic.watched.sums[1] / run.critic.watched.sums[0] for run in runs]
    assert rewards[0] == pytest.approx(rewards[1], rel=0.1)
