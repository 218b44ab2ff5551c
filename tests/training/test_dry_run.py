"""`--dry-run`: its estimates beside what is measured, and what it says of weights and of the run that is there."""

import itertools
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
import torchvision
from trainers import SMALL

from imgcap.config.engine import EngineConfig
from imgcap.config.load import load_config
from imgcap.ranks.world import World
from imgcap.training import dry_run
from imgcap.training.assembly import assemble
from imgcap.training.dry_run import describe
from imgcap.training.resumption import Resumption
from imgcap.types import PAD

DRAWN = ["train.objective=self_critical"]
CPU = World(0, 1, 0, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """Also on a machine that does much else."""
    monkeypatch.setattr(dry_run, "PATIENCE", 600.0)


@pytest.fixture
def dry(command, shards, tiny, tmp_path):
    """The JSON line of a dry run into `tmp_path / "run"`."""

    def start(*settings):
        given = ["--config", os.devnull, *tiny, f"data.shards={shards}", f"run_dir={tmp_path / 'run'}", *settings]
        ended = command("launch/train.py", "--dry-run", *given)
        assert ended.returncode == 0, ended.stderr
        (line,) = ended.stdout.splitlines()
        return json.loads(line)

    return start


def assembled(tmp_path, shards, *settings):
    given = [f"run_dir={tmp_path / 'run'}", *SMALL, f"data.shards={shards}", "train.global_batch=12", *settings]
    config, resumption = load_config(None, given), Resumption(tmp_path / "run", "auto")
    return assemble(config, CPU, resumption, dry_run=True), config, resumption


@pytest.mark.parametrize(
    "settings",
    [
        ["model.encoder.train=all", "data.image_size=64"],
        ["model.encoder.train=none", "train.precision=bf16"],
        ["model.encoder.train=all", "model.decoder.type=lstm", "data.max_tokens=40", "train.precision=bf16"],
        ["model.encoder.train=all", *DRAWN, "train.self_critical={samples: 9, cross_entropy: 0.2}"],
    ],
    ids=str,
)
def test_the_memory_of_a_step_is_what_torch_s_profiler_sees(tmp_path, shards, settings):
    """Of twelve images, where the estimate has tried two and four; what convolutions need within is not seen."""
    trainer, config, resumption = assembled(tmp_path, shards, *settings)
    told = describe(trainer, config, resumption)["memory"]
    batch = dry_run._blank(trainer, config, 12)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        dry_run._pass(trainer, batch)
    events = profiler.profiler.kineto_results.events()
    moved = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    assert told["step"] == pytest.approx(max(itertools.accumulate(size for _, size in moved)), rel=0.15)


def test_time_is_that_of_captions_as_long_as_those_of_train():
    full_BKT = torch.full((4, 2, 10), 5)
    short_BKT = dry_run._shortened(full_BKT, Counter({3: 50, 6: 25, 20: 25}))
    tokens = (short_BKT != PAD).sum(-1).flatten().tolist()  # with <sos> and <eos>
    assert sorted(tokens) == [5] * 4 + [8] * 2 + [10] * 2
    assert torch.equal(short_BKT.sort(dim=-1, descending=True).values, short_BKT)  # what is left out lies at the end


def test_weights_and_optimiser_are_counted_as_they_are_kept(tmp_path, shards):
    trainer, config, resumption = assembled(tmp_path, shards, "model.encoder.train=layer4", "train.ema=0.9")
    told = describe(trainer, config, resumption)["memory"]
    parameters = list(trainer.engine.raw_model.parameters())
    trained = sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)
    assert told["optimizer"] == 2 * trained and told["total"] == sum(told[k] for k in ("weights", "optimizer", "step"))
    frozen = sum(parameter.nbytes for parameter in parameters if not parameter.requires_grad)
    kept = 2 * (trained + frozen) + frozen  # the model, its average, and the folded copy of what is frozen
    assert told["weights"] == pytest.approx(kept, rel=0.01)


def test_a_self_critical_step_is_one_of_drawn_captions(tmp_path, shards):
    def memory(*settings):
        trainer, config, resumption = assembled(tmp_path, shards, "model.encoder.train=none", *settings)
        return describe(trainer, config, resumption)["memory"]

    found = [memory(*DRAWN, f"train.self_critical={given}") for given in ("{samples: 5}", "{samples: 40}")]
    assert found[1]["step"] > 4 * found[0]["step"]
    watched = memory(*DRAWN, "train.self_critical={samples: 5, kl: 0}")
    assert watched["weights"] == pytest.approx(1.5 * found[0]["weights"], rel=0.01)  # a frozen encoder has a copy


def test_the_time_of_a_run_is_that_of_its_steps(dry):
    told = dry("train.max_steps=10", "train.epochs=9")
    assert told["total_steps"] == 10 and told["time"]["step"] > 0
    assert told["time"]["run"] == pytest.approx(10 * told["time"]["step"], abs=0.51)


def test_what_deepspeed_divides_is_not_guessed_at(tmp_path, shards):
    trainer, config, resumption = assembled(tmp_path, shards)
    divided = config.model_copy(update={"engine": EngineConfig(name="deepspeed")})
    told = describe(trainer, divided, resumption)
    assert told["parameters"] and not {"memory", "time"} & told.keys() and "DeepSpeed" in told["left_out"]


def test_what_a_cpu_is_slow_at_is_left_out(tmp_path, shards, monkeypatch):
    """A pass of two images in fp16 took 38 s on a CPU where it takes one in bf16."""
    trainer, config, resumption = assembled(tmp_path, shards, "train.precision=fp16")
    told = describe(trainer, config, resumption)
    assert told["memory"] and "time" not in told and told["left_out"] == "time: fp16 was tried as bf16 on cpu"
    monkeypatch.setattr(dry_run, "PATIENCE", 0.0)
    told = describe(trainer, config, resumption)
    assert not {"memory", "time"} & told.keys() and "a pass of 8 images takes" in told["left_out"]


def test_weights_are_read_and_never_downloaded(dry, command, shards, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    address = torchvision.models.ResNet18_Weights.DEFAULT.url
    assert dry()["weights"] == {"source": "random", "to_download": False}
    assert dry("model.encoder.weights=DEFAULT")["weights"] == {"source": address, "to_download": True}
    assert not (tmp_path / "hub").exists() and not (tmp_path / "run").exists()
    kept = tmp_path / "hub/checkpoints" / Path(address).name
    kept.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), kept)
    assert dry("model.encoder.weights=DEFAULT")["weights"] == {"source": "DEFAULT", "to_download": False}
    assert dry(f"model.encoder.weights={kept}")["weights"] == {"source": str(kept), "to_download": False}
    pytest.importorskip("timm")
    sources = {"timm/vit_tiny_patch16_224": "https://huggingface.co/timm/vit_tiny_patch16_224"}
    for name, source in sources.items():
        told = dry(f"model.encoder={{name: {name}, weights: DEFAULT}}", "data.image_size=224")["weights"]
        assert told["source"].startswith(source) and told["to_download"]
    for name, told in {"resnet34": "does not fit resnet34", "resnet18": "is no file"}.items():
        weights = kept if name == "resnet34" else tmp_path / "nowhere.pth"
        given = [*tiny, f"data.shards={shards}", f"model.encoder={{name: {name}, weights: {weights}}}"]
        assert told in command("launch/train.py", "--config", os.devnull, "--dry-run", *given).mistake


def test_the_run_that_is_there_is_compared(dry, launch, tmp_path):
    fresh = dry("train.max_steps=1")
    assert (fresh["run"], fresh["changed"], fresh["refused"]) == (str(tmp_path / "run"), {}, None)
    ended = launch(tmp_path / "run", "train.max_steps=1", "eval.metrics=[BLEU]")
    assert ended.returncode == 0, ended.stderr
    same = dry("train.max_steps=2")
    assert same["changed"] == {"train.max_steps": [1, 2]} and same["refused"] is None
    other = dry("seed=4")
    assert other["changed"] == {"seed": [0, 4]} and "seed 0 -> 4" in other["refused"]
