"""A GPU whose memory runs out ends a run, an evaluation or a captioning with the size that would fit."""

from pathlib import Path

import pytest
import torch
from untrained import save_run

import imgcap
from imgcap.config.load import load_config
from imgcap.data.plan import split_batch
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.ranks.world import World
from imgcap.training.assembly import assemble
from imgcap.training.resumption import Resumption

CPU = World(0, 1, 0, torch.device("cpu"))
pytestmark = pytest.mark.usefixtures("own_signals")
SMALL = [
    "data={image_size: 32, workers: 0, augment: light}",
    "model.encoder={name: resnet18, weights: none}",
]
SMALL += ["model.decoder={embed_dim: 8, hidden_dim: 12, attention_dim: 8}", "log={every: 1, tensorboard: false}"]
SMALL += ["eval={every: 0, limit: 8, metrics: []}", "checkpoint.every=0", "train.max_steps=3"]


@pytest.fixture
def room(monkeypatch):
    """Let a forward pass have room for so many images, from its n-th call on."""
    calls = []

    def for_images(count, after=0):
        def encode(self, images_BCHW, encode=Captioner.encode):
            calls.append(len(images_BCHW))
            if len(images_BCHW) > count and len(calls) > after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            return encode(self, images_BCHW)

        monkeypatch.setattr(Captioner, "encode", encode)
        return calls

    return for_images


def trainer(run, shards, *settings):
    config = load_config(None, [f"run_dir={run}", *SMALL, f"data.shards={shards}", *settings])
    return assemble(config, CPU, Resumption(run, "no"))


@pytest.mark.parametrize(
    "settings, images, told",
    [
        (
            ["train.global_batch=32"],
            5,
            r"of 32 images; train.micro_batch=4 fits: .* 8 forward passes a step",
        ),
        (["train.global_batch=12", "train.micro_batch=6"], 2, r"of 6 images; train.micro_batch=1 fits.* 12 forward"),
        (["train.global_batch=18"], 4, r"of 18 images; train.micro_batch=3 fits: .* 6 forward passes"),
        (["train.global_batch=4"], 0, "of 4 images, nor for one; lower data.image_size"),
        (["train.global_batch=4", "train.micro_batch=1"], 0, "of 1 images; lower data.image_size"),
    ],
)
def test_a_step_without_room_names_the_micro_batch_that_fits(tmp_path, shards, room, settings, images, told):
    run = trainer(tmp_path / "run", shards, *settings)
    room(images)
    with pytest.raises(UserError, match="^the cpu has no room for a micro-batch " + told) as raised:
        run.fit()
    assert "\n" not in str(raised.value)
    assert all(parameter.grad is None for parameter in run.engine.raw_model.parameters())


def test_the_micro_batch_that_it_names_trains(tmp_path, shards, room):
    room(5)
    with pytest.raises(UserError, match=r"train.micro_batch=4 fits"):
        trainer(tmp_path / "first", shards, "train.global_batch=8").fit()
    run = trainer(tmp_path / "second", shards, "train.global_batch=8", "train.micro_batch=4", "eval.batch=4")
    run.fit()
    assert run.step == 3 and split_batch(8, 4, 1) == run.accumulation


def test_later_steps_and_evaluation_say_it_too(tmp_path, shards, room):
    run = trainer(tmp_path / "run", shards, "train.global_batch=8")
    calls = room(3, after=2)
    with pytest.raises(UserError, match=r"train.micro_batch=2 fits"):
        run.fit()
    assert run.step == 2 and calls == [8, 8, 8, 4, 2]
    with pytest.raises(UserError, match=r"no room to caption and score 32 pictures at once; eval\.batch=2 fits"):
        run.evaluate()


@pytest.mark.parametrize(
    "images, told", [(3, "--batch or batch_size=2 fits"), (0, "not even one fits: lower data.image")]
)
def test_captioning_says_it_too(tmp_path, photo, room, images, told):
    save_run(tmp_path / "run", ["a", "dog", "runs"], "data={image_size: 32, max_tokens: 4}")
    photo(tmp_path / "photo.png")
    captioner = imgcap.load(tmp_path / "run", "cpu")
    room(images)
    with pytest.raises(UserError, match=f"the cpu has no room to caption 11 pictures at once; {told}"):
        captioner.caption([Path(tmp_path / "photo.png")] * 11)
