"""The engine: accumulation adds up to one batch, bad gradients change nothing, every precision learns."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imgcap.config.engine import EngineConfig
from imgcap.config.model import AttentionLSTMConfig, EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import UserError
from imgcap.models.captioner import build_captioner
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import EOS, PAD, SOS, Batch, Forcing, StepInputs

CPU = World(0, 1, 0, torch.device("cpu"))
MODEL = ModelConfig(
    encoder=EncoderConfig(name="resnet18", weights=None, train="all"),
    decoder=AttentionLSTMConfig(embed_dim=16, hidden_dim=24, attention_dim=16, dropout=0.0),
)


REGULARISED = {"label_smoothing": 0.1, "attention_penalty": 0.5}


def engine(world=CPU, **train):
    torch.manual_seed(0)
    settings = TrainConfig(**train)
    objective = CrossEntropy(build_captioner(MODEL, 20), settings)
    return DDPEngine(EngineConfig(), objective, settings, OptimConfig(lr=3e-3), world)


def data(images=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    images_BCHW = torch.randint(0, 256, (images, 3, 32, 32), generator=random, dtype=torch.uint8)
    tokens_BKT = torch.full((images, 2, 8), PAD)
    for b in range(images):
        for k in range(2):
            length = 2 + (b + k) % 5
            tokens_BKT[b, k, 0] = SOS
            tokens_BKT[b, k, 1 : 1 + length] = torch.randint(4, 20, (length,), generator=random)
            tokens_BKT[b, k, 1 + length] = EOS
    return images_BCHW, tokens_BKT


def batch(images_BCHW, tokens_BKT):
    return Batch(images_BCHW, tokens_BKT, torch.arange(len(images_BCHW)))


def gradient(engine, images_BCHW, tokens_BKT, pieces):
    engine.raw_model.eval()  # BatchNorm over a batch would depend on how it is cut
    tokens = (tokens_BKT[..., 1:] != PAD).sum()
    for images, captions in zip(images_BCHW.chunk(pieces), tokens_BKT.chunk(pieces), strict=True):
        with engine.micro_batch(last=True):
            loss = engine.loss(batch(images, captions), StepInputs())
            engine.backward(loss.total, tokens)
    return [p.grad.clone() for p in engine.parameters]


def train(engine, steps, device="cpu"):
    images, tokens = (tensor.to(device) for tensor in data())
    losses = []
    for _ in range(steps):
        with engine.micro_batch(last=True):
            loss = engine.loss(batch(images, tokens), StepInputs())
            engine.backward(loss.total, loss.tokens)
        engine.step(torch.ones(()))
        losses.append(float(loss.total.detach() / loss.tokens))
    return losses


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    images, tokens = data()
    whole = gradient(engine(**REGULARISED), images, tokens, 1)
    for pieces in (2, 4):
        for g, expected in zip(gradient(engine(**REGULARISED), images, tokens, pieces), whole, strict=True):
            torch.testing.assert_close(g, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_changes_nothing(precision):
    e = engine(precision=precision)
    train(e, 2)
    before = [p.clone() for p in e.parameters]
    images, tokens = data()
    loss = e.loss(batch(images, tokens), StepInputs())
    e.backward(loss.total * float("inf"), torch.tensor(1))
    result = e.step(torch.ones(()))
    assert result.skipped == 1
    assert all(torch.equal(p, old) for p, old in zip(e.parameters, before, strict=True))
    if precision == "fp16":
        assert e.scaler.get_scale() < result.loss_scale * 1.01
    assert all(torch.isfinite(torch.tensor(train(e, 2))))


@pytest.mark.parametrize("precision", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.exhaustive)])
def test_every_precision_learns_a_batch_by_heart(precision):
    losses = train(engine(precision=precision), 40)
    assert losses[-1] < 0.5 * losses[0]


def test_clipping_bounds_the_update_and_reports_the_norm_before_it():
    e = engine(clip_norm=1e-3)
    images, tokens = data()
    norm = torch.stack([g.norm() for g in gradient(e, images, tokens, 1)]).norm()
    torch.testing.assert_close(e.step(torch.ones(())).grad_norm, norm)


def test_the_optimiser_goes_on_from_its_state():
    first, second = engine(), engine()
    train(first, 3)
    second.raw_model.load_state_dict(first.raw_model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # the optimiser keeps the tensors it is given
    assert train(first, 3) == train(second, 3)


def test_the_configuration_of_today_wins_over_the_checkpoint_s():
    first, second = engine(), engine()
    train(first, 2)
    second.optimizer.param_groups[0] |= {"base_lr": 7e-5, "weight_decay": 0.7}
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert (second.optimizer.param_groups[0]["base_lr"], second.optimizer.param_groups[0]["weight_decay"]) == (
        7e-5,
        0.7,
    )
    assert second.optimizer.state[second.parameters[0]]["step"] == 2


def test_an_optimiser_of_another_model_is_refused():
    frozen = MODEL.model_copy(update={"encoder": EncoderConfig(name="resnet18", weights=None, train="none")})
    objective = CrossEntropy(build_captioner(frozen, 20), TrainConfig())
    other = DDPEngine(EngineConfig(), objective, TrainConfig(), OptimConfig(), CPU)
    train(other, 1)
    with pytest.raises(UserError, match=r"model\.encoder\.train"):
        engine().load_state_dict(other.state_dict())


@pytest.mark.slow
def test_compiled_training_equals_eager_and_leaves_the_model_raw():
    eager, compiled = engine(), engine(compile="default")
    found, expected = train(compiled, 3), train(eager, 3)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found == pytest.approx(expected, rel=5e-3)  # AdamW's first steps take signs: rounding grows
    assert set(compiled.raw_model.state_dict()) == set(eager.raw_model.state_dict())


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("trained", ["none", "last_block"])
def test_frozen_stages_compile_in_half_precision(trained):
    model = MODEL.model_copy(update={"encoder": EncoderConfig(name="resnet18", weights=None, train=trained)})
    losses = []
    for compile in ("off", "default"):
        torch.manual_seed(0)
        settings = TrainConfig(precision="bf16", compile=compile)
        objective = CrossEntropy(build_captioner(model, 20), settings)
        losses.append(train(DDPEngine(EngineConfig(), objective, settings, OptimConfig(lr=3e-3), CPU), 2))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


class HostReads(TorchDispatchMode):
    """Counts the reads that would wait for a device: `.item()`, `bool(tensor)`, `.tolist()`.

    Not `nonzero`, with which the loss leaves out padding on a CPU alone. The decoders, which count it there, are told
    to keep it, as on a GPU.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.overloadpacket == torch.ops.aten._local_scalar_dense:
            self.found.append(str(operation))
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["none", "in_turn", "two_pass"])
def test_a_step_reads_no_number_on_the_host(precision, kind, monkeypatch):
    monkeypatch.setattr("imgcap.models.decoders.lstm_stack.keeps_all_steps", lambda *_: True)
    e = engine(precision=precision)
    train(e, 2)
    images, tokens = data()
    forcing = None
    if kind != "none":
        forcing = Forcing(torch.tensor(0.5), torch.rand(tokens.shape), two_pass=kind == "two_pass")
    with HostReads() as reads:
        for _ in range(2):
            loss = e.loss(batch(images, tokens), StepInputs(forcing, count_correct=True))
            e.backward(loss.total, loss.tokens)
            e.step(torch.ones(()))
        assert not reads.found
        float(loss.total.detach())
    assert reads.found


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("compile", ["off", "default"])
def test_every_precision_learns_on_a_gpu(precision, compile):
    world = World(0, 1, 0, torch.device("cuda", 0))
    losses = train(engine(world, precision=precision, compile=compile), 40, "cuda")
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.gpu
def test_a_step_waits_for_the_device_nowhere():
    e = engine(World(0, 1, 0, torch.device("cuda", 0)), precision="bf16")
    train(e, 3, "cuda")
    images, tokens = (tensor.cuda() for tensor in data())
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            loss = e.loss(batch(images, tokens), StepInputs())
            e.backward(loss.total, loss.tokens)
            e.step(torch.ones(()))
    finally:
        torch.cuda.set_sync_debug_mode("default")
