"""Steps on a GPU learn, and learn the same, captured or not, in every precision and with every decoder.

What runs on a CPU too runs there as well: a graph then runs its function as it is, and only its static tensors are
those of a GPU.
"""

import pytest
import torch
from launched import TRANSFORMER
from trainers import fit, trainer

from imgcap.config.model import DECODERS
from imgcap.training.debug import OneBatch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_signals")]
CPU, GPU = "cpu", "cuda:0"
ON_BOTH = [CPU, pytest.param(GPU, marks=pytest.mark.gpu)]
SELDOM_ON_BOTH = [pytest.param(CPU, marks=pytest.mark.exhaustive), pytest.param(GPU, marks=pytest.mark.gpu)]
VARIANTS = {
    **{name: [f"model.decoder.type={name}"] for name in DECODERS},
    "transformer": TRANSFORMER,
    "query after": ["model.decoder.query=after"],
    "dot": ["model.decoder={query: after, attention: dot, embed_dim: 16, hidden_dim: 24, attention_dim: 16}"],
    "two passes": ["train.teacher_forcing={start: 0.8, sampling: two_pass}"],
    "in turn": ["train.teacher_forcing={start: 0.8}"],
}
EVERY = [
    pytest.param(CPU, "fp32", "in turn", id="cpu-fp32-in turn"),
    *(
        pytest.param(CPU, "fp32", name, id=f"cpu-fp32-{name}", marks=pytest.mark.exhaustive)
        for name in VARIANTS
        if name != "in turn"
    ),
    pytest.param(CPU, "bf16", "attention_lstm", id="cpu-bf16-attention_lstm", marks=pytest.mark.exhaustive),
    *(
        pytest.param(GPU, precision, name, id=f"gpu-{precision}-{name}", marks=pytest.mark.gpu)
        for precision in ("fp32", "tf32", "bf16", "fp16")
        for name in VARIANTS
    ),
]
# A GPU may add in another order under a graph: of one library the choice of a kernel depends on its workspace.
CLOSE = {"fp32": 1e-4, "tf32": 1e-3, "bf16": 1e-3, "fp16": 1e-3}


def same(found, expected, device, precision="fp32"):
    """Whether losses are equal: to the bit on a CPU."""
    return found == (expected if device == CPU else pytest.approx(expected, rel=CLOSE[precision]))


@pytest.fixture
def losses(metrics):
    return lambda run: [values["train/loss"] for _, values in sorted(metrics(run).items())]


@pytest.fixture(scope="module")
def exact():
    """Losses in float32 on a GPU, by variant."""
    return {}


@pytest.mark.parametrize("device, precision, variant", EVERY)
def test_a_batch_is_learnt_alike_captured_and_not(tmp_path, shards, losses, exact, device, precision, variant):
    found = {}
    for captured in (False, True):
        run = tmp_path / str(captured)
        settings = [*VARIANTS[variant], f"train.precision={precision}", "train.max_steps=20", "model.decoder.dropout=0"]
        made = trainer(run, shards, device, *settings, captured=captured)
        made.loader = OneBatch(made.loader)
        made.fit()
        found[captured] = losses(run)
    assert len(found[True]) == 20 and found[True][-1] < 0.85 * found[True][0]
    assert same(found[True], found[False], device, precision)
    if device == GPU and precision == "fp32":
        exact[variant] = found[False]
    if device == GPU and variant in exact and precision != "fp16":  # whose scale may have skipped a step
        assert found[False] == pytest.approx(exact[variant], rel=0.05)


@pytest.mark.parametrize("device", ON_BOTH)
@pytest.mark.parametrize(
    "settings",
    [
        ["train.micro_batch=2", "train.teacher_forcing={start: 0.9, end: 0.5, schedule: linear}", "train.ema=0.9"],
        ["train.label_smoothing=0.1", "train.attention_penalty=0.5", "optim={schedule: cosine, warmup: 10}"],
    ],
    ids=["accumulation, forcing and average", "penalty, smoothing and schedule"],
)
def test_captured_and_plain_steps_stay_equal(tmp_path, shards, losses, device, settings):
    steps, precision = (200, "bf16") if device == GPU else (30, "fp32")
    made = [
        fit(
            tmp_path / str(captured),
            shards,
            device,
            *settings,
            f"train.max_steps={steps}",
            f"train.precision={precision}",
            captured=captured,
        )
        for captured in (False, True)
    ]
    plain, captured = (losses(tmp_path / name) for name in ("False", "True"))
    assert len(plain) == steps and same(captured, plain, device, precision)
    weights = [one.average.to_evaluate().state_dict() for one in made]
    for name, weight in weights[0].items():
        allowed = {"rtol": 0, "atol": 0} if device == CPU else {"rtol": 1e-2, "atol": 1e-3}
        torch.testing.assert_close(weights[1][name], weight, **allowed)


@pytest.mark.parametrize("device", SELDOM_ON_BOTH)
def test_a_part_of_the_encoder_that_begins_to_train_is_captured_too(tmp_path, shards, losses, device):
    settings = ["train.unfreeze={layer4: '6'}", "train.max_steps=12"]
    for captured in (False, True):
        made = fit(tmp_path / str(captured), shards, device, *settings, captured=captured)
        assert made.engine.raw_model.encoder.backbone.layer4[0].conv1.weight.requires_grad
    plain, captured = (losses(tmp_path / name) for name in ("False", "True"))
    # The gradient of a convolution is added up in no fixed order on a GPU.
    assert captured == plain if device == CPU else captured == pytest.approx(plain, rel=1e-2)


@pytest.mark.gpu
def test_the_encoder_compiled_and_the_step_captured_learn_the_same(tmp_path, shards, losses):
    """As a GPU trains where nothing else is asked for."""
    settings = ["train.precision=bf16", "train.max_steps=12"]
    fit(tmp_path / "plain", shards, GPU, *settings)
    fit(tmp_path / "auto", shards, GPU, *settings, "train.compile=auto", "train.capture=auto")
    assert losses(tmp_path / "auto") == pytest.approx(losses(tmp_path / "plain"), rel=0.02)


@pytest.mark.parametrize("device", SELDOM_ON_BOTH)
@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_a_loss_scale_that_is_too_high_skips_and_falls(tmp_path, shards, metrics, device, captured):
    settings = ["train.precision=fp16", "train.max_steps=30", "model.decoder.dropout=0"]
    made = trainer(tmp_path / "run", shards, device, *settings, captured=captured)
    weights, changed = [], []

    def after_step():
        weights.append({name: weight.detach().clone() for name, weight in made.engine.raw_model.named_parameters()})
        if len(weights) > 1:
            before, now = weights[-2:]
            changed.append(any(not torch.equal(now[name], before[name]) for name in now))
        if len(weights) == 10:
            made.engine.scaler._scale.fill_(2.0**27)  # in place: a graph reads it there

    made.after_step = after_step
    made.fit()
    logged = metrics(tmp_path / "run")
    assert logged[11]["train/loss_scale"] == 2.0**26 and logged[11]["train/skipped_steps"] == 1
    for step in range(2, 31):
        assert changed[step - 2] == (logged[step]["train/skipped_steps"] == 0), step
        if step != 11:
            fell = logged[step]["train/loss_scale"] / logged[step - 1]["train/loss_scale"]
            assert fell == (0.5 if logged[step]["train/skipped_steps"] else 1)
    assert logged[30]["train/skipped_steps"] == 0 and logged[30]["train/loss"] < logged[1]["train/loss"]


@pytest.mark.parametrize("device", ON_BOTH)
@pytest.mark.parametrize("first", [False, True], ids=["plain, then captured", "captured, then plain"])
def test_a_run_goes_on_the_other_way(tmp_path, shards, losses, device, first):
    fit(tmp_path / "whole", shards, device, "train.max_steps=12", captured=not first)
    for captured, steps in ((first, 6), (not first, 12)):
        made = fit(tmp_path / "stopped", shards, device, f"train.max_steps={steps}", captured=captured)
    assert made.step == 12
    assert same(losses(tmp_path / "stopped"), losses(tmp_path / "whole"), device)


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
@pytest.mark.parametrize("settings", [[], ["train.micro_batch=2", "train.precision=fp16", "train.ema=0.9"]], ids=str)
def test_between_logs_no_step_waits_for_the_gpu(tmp_path, shards, captured, settings):
    made = trainer(tmp_path / "run", shards, GPU, *settings, "train.max_steps=40", "log.every=20", captured=captured)
    watched = []

    def after_step():
        if made.step % 20 in (11, 18):  # not the tenth, which looks whether the run is to stop
            torch.cuda.set_sync_debug_mode("error" if made.step % 20 == 11 else "default")
        watched.append(torch.cuda.get_sync_debug_mode())

    made.after_step = after_step
    try:
        made.fit()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(mode == 2 for mode in watched) == 14 and made.step == 40
