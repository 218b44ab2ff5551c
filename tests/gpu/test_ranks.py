"""Several ranks on one GPU over gloo, DeepSpeed, and memory that runs out."""

import os

import pytest
import torch
from trainers import fit, trainer

from imgcap.errors import UserError

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
GPU = "cuda:0"
FIXED = ["model.decoder.dropout=0", "train.max_steps=8", "train.compile=off", "train.attention_penalty=0.5"]
ONE_GPU = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
SHARED = ONE_GPU | {"IMGCAP_BACKEND": "gloo"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return tmp_path_factory.mktemp("alone") / "run"


@pytest.fixture
def losses(metrics, launch, alone):
    """Losses of a run, and of the plain one of one rank."""

    def read(run):
        if not alone.exists():
            done(launch(alone, *FIXED, "train.capture=off", extra=ONE_GPU))
        return [[step["train/loss"] for _, step in sorted(metrics(one).items())] for one in (run, alone)]

    return read


def done(ended):
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.dist
@pytest.mark.parametrize("capture", ["off", "auto"])
def test_two_ranks_on_one_gpu_have_the_losses_of_one(tmp_path, launch, losses, capture):
    settings = [*FIXED, f"train.capture={capture}", "eval.every=8", "checkpoint.every=4"]
    ended = done(launch(tmp_path / "run", *settings, ranks=2, extra=SHARED))
    found, expected = losses(tmp_path / "run")
    assert len(found) == 8 and found == pytest.approx(expected, rel=1e-4), ended.stderr


@pytest.mark.dist
def test_more_ranks_than_gpus_are_refused_without_gloo(tmp_path, launch):
    ended = launch(tmp_path / "run", *FIXED, ranks=2, extra=ONE_GPU)
    assert "IMGCAP_BACKEND=gloo" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("stage", range(4))
def test_deepspeed_of_one_rank_has_the_losses_of_ddp(tmp_path, launch, losses, stage):
    pytest.importorskip("deepspeed")
    settings = [*FIXED, "engine.name=deepspeed", f"engine.zero_stage={stage}"]
    done(launch(tmp_path / "run", *settings, extra=ONE_GPU))
    found, expected = losses(tmp_path / "run")
    assert len(found) == 8 and found == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def little_memory():
    """Leave this process so many MiB more than it has."""

    def leave(mebibytes):
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved(GPU) + mebibytes * 2**20
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(GPU).total_memory, GPU)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_the_micro_batch_that_is_named_when_memory_runs_out_fits(tmp_path, shards, little_memory, captured):
    settings = ["data.image_size=256", "model.encoder.train=all", "train.global_batch=48", "train.max_steps=4"]
    made = trainer(tmp_path / "whole", shards, GPU, *settings, captured=captured)
    little_memory(600)
    with pytest.raises(UserError, match=r"^GPU 0 \(.* GiB\) has no room for a micro-batch of 48 images; ") as raised:
        made.fit()
    assert "train.micro_batch=" in str(raised.value), raised.value
    named = str(raised.value).split("train.micro_batch=")[1].split()[0]
    del made, raised
    little_memory(600)
    capture = f"train.capture={'auto' if captured else 'off'}"  # which may need more than is left, and then goes on
    again = fit(tmp_path / "parts", shards, GPU, *settings, f"train.micro_batch={named}", capture)
    assert again.step == 4 and 48 % int(named) == 0


def test_a_command_whose_gpu_is_too_small_ends_with_one_line(tmp_path, launch):
    program = f"import torch; torch.cuda.set_per_process_memory_fraction(0.002, {GPU!r})"
    (tmp_path / "sitecustomize.py").write_text(program + "\n")
    extra = ONE_GPU | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    settings = ["data.image_size=224", "train.global_batch=48", "model.encoder.train=all"]
    process = launch(tmp_path / "run", *settings, wait=False, extra=extra)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 2 and "Traceback" not in error, error
    assert error.splitlines()[-1].startswith("error: GPU 0"), error
