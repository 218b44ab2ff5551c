"""Every family of encoders all the way: from a run to an artefact to a process that knows nothing else; cached too."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import ALL, SMALL
from torch import nn
from untrained import save_run

import imgcap
from imgcap.config.load import load_config
from imgcap.config.model import EncoderConfig
from imgcap.data.dataset import EvalDataset
from imgcap.export.artefact import export_run
from imgcap.models.captioner import Captioner
from imgcap.models.encoders.networks import input_of
from imgcap.models.trained import load_captioner
from imgcap.ranks.world import World
from imgcap.shards.reader import ShardReader
from imgcap.training.feature_cache import cache_features

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

WORDS = ["a", "the", "red", "blue", "dog", "cat", "bird", "ball", "sits", "on", "under"]
FRESH = """
import json, sys, torch, imgcap
torch.set_num_threads(1)
for line in sys.stdin:
    artefact, *pictures = json.loads(line)
    print(json.dumps([[c.text, c.score] for c in imgcap.load(artefact, "cpu").caption(pictures)]), flush=True)
"""


def tell_pictures_apart(captioner: Captioner) -> None:
    """Let every BatchNorm know what it sees: with fresh statistics some networks give all pictures one grid."""
    encoder, frozen = captioner.encoder, captioner.encoder.frozen_stages
    size = encoder.input.size if not encoder.input.any_size else 64
    blots = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    encoder.freeze(0)
    for module in encoder.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    encoder(nn.functional.interpolate(blots, size))
    encoder.freeze(frozen)


@pytest.fixture(params=ALL)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A run with an encoder of the family, gone after the test: one of each is 2 GB."""
    name = request.param
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    own = input_of(EncoderConfig(name=name))
    size = SMALL.get(name, 64 if own.any_size else own.size)
    encoder = f"{{name: {name}, weights: none, input_size: {SMALL.get(name, 'null')}}}"
    data = f"{{image_size: {size}, interpolation: {own.interpolation}, max_tokens: 7, workers: 0}}"
    folder = tmp_path / "run"
    settings = [f"model.encoder={encoder}", f"data={data}", "eval.metrics=[BLEU]"]
    yield save_run(folder, WORDS, *settings, edit=tell_pictures_apart)
    for made in tmp_path.iterdir():
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """A process that has an artefact's folder and pictures alone: what it says of them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", FRESH], env=environment, **pipes)

    def ask(artefact: Path, pictures: list[Path]) -> Any:
        assert process.stdin is not None and process.stdout is not None
        print(json.dumps([str(artefact), *map(str, pictures)]), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield ask
    process.communicate()


@pytest.fixture(scope="module")
def pictures(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    reader, folder = ShardReader(shards, "test"), tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{i}.jpg" for i in range(len(reader))]
    for i, path in enumerate(paths):
        path.write_bytes(reader.read(i).jpeg)
    return paths


def test_a_fresh_process_says_the_same_of_an_artefact(
    run: Path, elsewhere: Callable[..., Any], pictures: list[Path]
) -> None:
    expected = [[caption.text, caption.score] for caption in imgcap.load(run, "cpu").caption(pictures)]
    export_run(run, run.with_name("artefact"))
    shutil.move(run, run.with_name("away"))
    assert elsewhere(run.with_name("artefact"), pictures) == expected
    assert len({(text, score) for text, score in expected}) > 1, "it says the same of every picture"


def test_cached_features_are_the_frozen_encoder_s_and_score_the_same(
    run: Path, shards: Path, command: Callable[..., Any]
) -> None:
    out = run.with_name("features")
    config = load_config(run / "config.yaml", [f"init_from={run}", f"data.shards={shards}", "log.every=1"])
    cache_features(config, out, World(0, 1, 0, torch.device("cpu")))
    loaded = load_captioner(run)
    in_loop, cached = (
        EvalDataset(ShardReader(place, "train"), loaded.vocabulary, config.data) for place in (shards, out)
    )
    images_BCHW, features_BPE = (torch.stack([image for image, _ in each]) for each in (in_loop, cached))
    assert images_BCHW.dtype == torch.uint8 and features_BPE.dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(loaded.model.encoder(images_BCHW).half(), features_BPE)
    found = []
    for place in (shards, out):
        ended = command("imgcap", "evaluate", run, "--split", "train", f"data.shards={place}")
        assert ended.returncode == 0, ended.stderr
        scores = json.loads(ended.stdout.splitlines()[-1])
        captions = json.loads((run / "results" / "demo-train-captions.json").read_text())
        found.append(([each["caption"] for each in captions], scores["loss"]))
    (in_loop_said, in_loop_loss), (cached_said, cached_loss) = found
    turned = sum(one != other for one, other in zip(in_loop_said, cached_said, strict=True))
    assert len(cached_said) == len(cached) and turned <= 2, "half precision may turn a near tie of random weights"
    assert cached_loss == pytest.approx(in_loop_loss, rel=1e-3)
