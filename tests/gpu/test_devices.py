"""Every command and every measurement on every way to name a device; the ways without a GPU run on a CPU too."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from trainers import SMALL
from untrained import save_run

import imgcap
from imgcap.captioning.page.server import Limits, Page
from tools.bench.measures import MEASURES

pytestmark = pytest.mark.slow
ON_GPU = pytest.mark.gpu
DEVICES = [
    "cpu",
    pytest.param(None, marks=pytest.mark.exhaustive),
    pytest.param("cuda", marks=ON_GPU),
    pytest.param("cuda:0", marks=ON_GPU),
]
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]
CHECKPOINT = "checkpoints/step-00000002/model.safetensors"


@pytest.fixture
def done(command):
    def run(*arguments):
        ended = command("imgcap", *arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def run(tmp_path, shards):
    data = f"data={{shards: {shards}, image_size: 48, max_tokens: 7, workers: 0}}"
    return save_run(tmp_path / "untrained", WORDS, data, "eval={beam: 3, batch: 8, metrics: []}")


def named(device):
    return [] if device is None else ["--device", device]


@pytest.mark.parametrize("device", DEVICES)
def test_what_trains(done, shards, tmp_path, device):
    settings = [*SMALL, f"data.shards={shards}", "model.encoder.train=none", "data.augment=off", "train.max_steps=2"]
    cached = tmp_path / "features"
    config = tmp_path / "empty.yaml"
    config.write_text("")
    done("cache-features", "--config", config, "--out", cached, *named(device), *settings)
    for place in (shards, cached):
        out = tmp_path / f"run-{place.name}"
        done("train", "--config", config, *named(device), *settings, f"run_dir={out}", f"data.shards={place}")
        done("train", "--config", config, *named(device), *settings, f"run_dir={out}", f"data.shards={place}")
        assert (out / CHECKPOINT).is_file()
    for mode in ("--debug", "--dry-run"):
        done("train", mode, "--config", config, *named(device), *settings, f"run_dir={tmp_path / 'mode'}")
    done("inspect", shards, "--out", tmp_path / "page.html")


@pytest.mark.parametrize("device", DEVICES)
def test_what_captions_and_scores(done, run, shards, tmp_path, device):
    pictures = sorted(Path(shards).with_name("demo-raw").rglob("*.jpg"))[:5]
    models, said = [run], []
    if importlib.util.find_spec("spacy"):  # whose version an artefact names
        done("export", run, "--out", tmp_path / "artefact")
        models.append(tmp_path / "artefact")
    for model in models:
        scores = json.loads(done("evaluate", model, f"data.shards={shards}", *named(device)).splitlines()[-1])
        assert scores["loss"] > 0
        done("caption", model, shards, "--out", tmp_path / f"{model.name}.jsonl", *named(device), "data.workers=0")
        told = json.loads(
            done("caption", model, *pictures, "--json", *named(device), "--attention", tmp_path / "drawn")
        )
        loaded = imgcap.load(model, device)
        on_gpu = loaded.loaded.device.type == "cuda"
        assert on_gpu == (torch.cuda.is_available() if device is None else device != "cpu")
        called = loaded.caption(pictures, batch_size=16)
        said += [[entry["caption"] for entry in told], [caption.text for caption in called]]
        answer = Page({"m": loaded}, Limits()).answer(str(pictures[0]), {})
        assert f'aria-label="{loaded.caption(pictures[0])[0].text}"' in answer
        for method in ({"method": "sample", "samples": 2, "top_p": 0.9}, {"method": "diverse", "beam": 4, "groups": 2}):
            assert len(loaded.caption(pictures, **method)) == len(pictures)
        assert all("dog" in found.text.split() for found in loaded.caption(pictures, beam=2, required=["dog"]))
    assert all(captions == said[0] for captions in said)


@pytest.mark.gpu
def test_captions_and_losses_of_a_gpu_are_those_of_a_cpu(done, run, shards, tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.jsonl"
        scores = json.loads(
            done("evaluate", run, f"data.shards={shards}", "--split", "train", "--device", device).splitlines()[-1]
        )
        done("caption", run, shards, "--split", "train", "--out", out, "--device", device, "data.workers=0")
        found[device] = scores["loss"], [json.loads(line)["caption"] for line in out.read_text().splitlines()]
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=1e-4)
    same = sum(left == right for left, right in zip(found["cpu"][1], found["cuda"][1], strict=True))
    assert same >= 0.9 * len(found["cpu"][1]), "sharp weights let a rounding change a caption, seldom"


SIZES = {
    "encoder": ["--images", 2, "--image-size", 64],
    "step": ["--images", 1, "--captions", 2, "--tokens", 4],
    "beam": ["--images", 2, "--beams", 1, 3, "--steps", 5],
    "decoding": ["--images", 2, "--beam", 4, "--steps", 7],
    "caption": ["--images", 4, "--image-size", 32],
    "optimiser": [],
    "saving": ["--steps", 2, "--image-size", 32],
    "train": ["--encoder", "resnet18", "--images", 4, "--image-size", 32, "--precisions", "bf16"],
    "linear": ["--images", 1, 4, "--captions", 1, 3, "--image-size", 64, "--tokens", 8],
}


@pytest.mark.gpu
@pytest.mark.parametrize("measure", SIZES)
@pytest.mark.parametrize("device", ["cuda", "cuda:0", None])
def test_what_measures(command, shards, measure, device):
    if device != "cuda" and measure not in ("optimiser", "saving", "linear"):
        pytest.skip("one way to name the device is enough where it is only passed on")
    place = [shards] if MEASURES[measure].shards else []
    ended = command("tools/bench.py", "--repeats", "1", *named(device), measure, *place, *SIZES[measure])
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["machine"] == torch.cuda.get_device_name(0)
