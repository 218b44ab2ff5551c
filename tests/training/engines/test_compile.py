"""torch.compile: the decoder is one graph, and nothing is compiled again once a run is under way."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from imgcap.config.engine import EngineConfig
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.models.captioner import build_captioner
from imgcap.models.decoders.forcing import unroll
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import EOS, PAD, SOS, Batch, Forcing, StepInputs

WORDS, T = 20, 6
SMALL = {"embed_dim": 16, "hidden_dim": 24, "attention_dim": 16}
DECODERS = {
    "classic": {},
    "deep": {"output": "deep", "gate": False, "layers": 2},
    "embedded": {"feature_dim": 12, "dropout": 0.0},
    "after": {"query": "after"},
    "dot": {"query": "after", "attention": "dot"},
    "lstm": {"type": "lstm", "image_layers": 1},
    "transformer": {"type": "transformer", "layers": 2, "width": 16, "heads": 2, "feedforward": 24, "image_layers": 1},
}
FORCINGS = ("none", "in_turn", "two_pass")


@pytest.fixture(autouse=True)
def _each_alone():
    """What a test has compiled goes with it: together that is gigabytes."""
    yield
    torch._dynamo.reset()


def captioner(**decoder):
    torch.manual_seed(0)
    encoder = EncoderConfig(name="resnet18", weights=None)
    return build_captioner(ModelConfig(encoder=encoder, decoder=SMALL | decoder), WORDS)


def batch(seed):
    random = torch.Generator().manual_seed(seed)
    tokens_BKT = torch.randint(4, WORDS, (4, 2, T), generator=random)
    tokens_BKT[..., 0], tokens_BKT[..., -1] = SOS, PAD
    tokens_BKT[..., 3 + seed % 3] = EOS
    images_BCHW = torch.randint(0, 256, (4, 3, 64, 64), generator=random, dtype=torch.uint8)
    return Batch(images_BCHW, tokens_BKT, torch.arange(4))


def forcing(kind, ratio=0.5):
    return None if kind == "none" else Forcing(torch.tensor(ratio), torch.rand(4, 2, T), kind == "two_pass")


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", FORCINGS)
def test_the_decoder_has_no_graph_break(decoder, kind):
    model = captioner(**DECODERS[decoder]).train()
    features = model.encoder(batch(0).images_BCHW)
    torch._dynamo.reset()
    found = torch._dynamo.explain(partial(unroll, model.decoder))(features, batch(0).tokens_BKT, forcing(kind))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.slow
def test_nothing_is_compiled_again_after_the_first_steps():
    settings, world = TrainConfig(compile="default"), World(0, 1, 0, torch.device("cpu"))
    engine = DDPEngine(EngineConfig(), CrossEntropy(captioner(), settings), settings, OptimConfig(), world)

    def step(seed):
        for kind in ("none", "in_turn"):  # scheduled sampling that begins with the true words alone
            loss = engine.loss(batch(seed), StepInputs(forcing(kind, ratio=1 - seed / 10)))
            engine.backward(loss.total, loss.tokens)
            engine.step(torch.ones(()))

    torch._dynamo.reset()
    step(0)
    step(1)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(2, 8):
            step(seed)


def test_an_encoder_that_cannot_be_compiled_by_itself_runs_as_it_is(capsys):
    objective = CrossEntropy(captioner(), TrainConfig())
    images = SimpleNamespace(ndim=4, device=torch.device("cuda"))

    def fails(_):
        raise TorchDynamoException("no C compiler was found")

    objective._encode, objective.captioner.encode = fails, lambda given: given
    assert objective.encode(images) is images and objective.encode(images) is images
    said = "train.compile: the encoder is not compiled (no C compiler was found)\n"
    assert capsys.readouterr().err == said
    objective._encode, objective.compiling = fails, "default"
    with pytest.raises(TorchDynamoException):
        objective.encode(images)


def test_an_encoder_that_is_recomputed_is_not_compiled_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: function)
    encoder = EncoderConfig(name="resnet18", weights=None, train="last_block", recompute=True)
    model = build_captioner(ModelConfig(encoder=encoder, decoder=SMALL), WORDS)
    for mode, lines in (("off", 0), ("auto", 0), ("default", 1)):  # auto: on a GPU alone
        objective = CrossEntropy(model, TrainConfig(compile=mode))
        objective(batch(0), StepInputs()), objective(batch(1), StepInputs())
        said = capsys.readouterr().err
        assert (
            said
            == "train.compile: the encoder is not compiled (model.encoder.recompute runs its stages again)\n" * lines
        )


@pytest.mark.parametrize(
    ("mode", "asked"),
    [
        ("auto", []),  # on a GPU alone
        ("default", ["default"] * 2),
        ("reduce-overhead", ["default"] * 2),
        ("max-autotune", ["max-autotune-no-cudagraphs"] * 2),
        ("off", []),
    ],
)
def test_no_mode_captures_graphs_beside_ours(mode, asked, monkeypatch):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: modes.append(mode) or function)
    objective = CrossEntropy(captioner(), TrainConfig(compile=mode))
    objective(batch(0), StepInputs())
    assert modes == asked
    if mode == "auto":
        objective.captioner.encode = lambda given: given
        objective.encode(SimpleNamespace(ndim=4, device=torch.device("cuda")))
        assert modes == ["default"]
