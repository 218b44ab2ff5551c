"""Training on cached features: batches and losses as with the encoder in the loop; other features are refused."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
import webdataset
from PIL import Image

from imgcap.config.load import load_config
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.models.captioner import Captioner
from imgcap.ranks.world import World
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader
from imgcap.shards.verify import verify
from imgcap.training.feature_cache import cache_features

CHECKOUT = Path(__file__).parents[2]
FROZEN = ["data.image_size=64", "data.augment=off", "model.encoder.name=resnet18", "model.encoder.weights=none"]
RUN = [*FROZEN, "model.encoder.train=none", "model.decoder.dropout=0", "train.max_steps=12"]


@pytest.fixture(scope="module")
def cache(warm):
    def run(out, shards, ranks=1):
        settings = [f"data.shards={shards}", *FROZEN]
        arguments = ["tools/cache_features.py", "--config", os.devnull, "--out", out, "--batch", "8", *settings]
        return warm[False].run(arguments, CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"}, ranks)

    return run


@pytest.fixture(scope="module")
def cached(shards, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("cached") / "features"
    made = cache(out, shards, ranks=2)
    assert made.returncode == 0, made.stderr
    return out


@pytest.mark.dist
@pytest.mark.slow
def test_the_set_is_whole_and_the_same_for_any_number_of_ranks(cached, cache, shards, tmp_path):
    assert verify(cached, decode=True) == []
    features = Manifest.load(cached).features
    assert (features.shape, features.image_size) == ((4, 512), 64)
    assert cache(tmp_path / "alone", shards).returncode == 0
    assert (tmp_path / "alone/manifest.json").read_bytes() == (cached / "manifest.json").read_bytes()
    here, there = ShardReader(shards, "train"), ShardReader(cached, "train")
    assert [there.read(i) for i in range(len(here))] == [here.read(i) for i in range(len(here))]
    first = next(iter(webdataset.WebDataset([str(cached / "train-00000.tar")], shardshuffle=False)))
    assert {"jpg", "json", "fp16"} <= set(first) and len(first["fp16"]) == 4 * 512 * 2


@pytest.mark.slow
@pytest.mark.exhaustive
def test_losses_are_those_with_the_encoder_within_half_precision(cached, shards, tmp_path, launch, metrics, warm):
    runs = {"images": f"data.shards={shards}", "features": f"data.shards={cached}"}
    for name, where in runs.items():
        ended = launch(tmp_path / name, *RUN, where, "data.workers=1", "eval.every=6", "eval.metrics=[BLEU]")
        assert ended.returncode == 0, ended.stderr
    images, features = (metrics(tmp_path / name) for name in runs)
    assert [line["train/batch_hash"] for line in features.values()] == [
        line["train/batch_hash"] for line in images.values()
    ]
    losses = [[line["train/loss"] for line in found.values()] for found in (features, images)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) == 12
    assert sorted((tmp_path / "features/samples").iterdir())  # the pictures are there still
    arguments = ["launch/evaluate.py", tmp_path / "features", "--split", "val", f"data.shards={shards}"]
    scored = warm[False].run(arguments, CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"})
    assert scored.returncode == 0, scored.stderr
    again = [json.loads(line) for line in (tmp_path / "features/metrics.jsonl").read_text().splitlines()]
    last = [line["val/BLEU-4"] for line in again if "val/BLEU-4" in line][-1]
    assert last >= 0 and "BLEU-4" in json.loads(scored.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.encoder.train=last_block", "set model.encoder.train=none"),
        ("data.augment=light", "set data.augment=off"),
        ("data.image_size=32", "set data.image_size=64"),
        ("seed=3", "of another encoder"),
    ],
)
def test_other_features_are_refused(cached, tmp_path, launch, override, message):
    refused = launch(tmp_path / "run", *RUN, f"data.shards={cached}", override)
    assert refused.returncode == 2
    assert message in refused.stderr.splitlines()[-1] and "data.features=false" in refused.stderr
    assert not (tmp_path / "run").exists()
    ended = launch(
        tmp_path / "run", *RUN, f"data.shards={cached}", override, "data.features=false", "train.max_steps=1"
    )
    assert ended.returncode == 0, ended.stderr


def test_a_dry_run_knows_no_weights_and_evaluation_refuses_another_encoder(cached, shards, tmp_path, launch, warm):
    dry = launch(tmp_path / "run", *RUN, f"data.shards={cached}", "seed=3", options=["--dry-run"])
    assert dry.returncode == 0, dry.stderr
    assert launch(tmp_path / "run", *RUN, f"data.shards={shards}", "seed=3", "train.max_steps=1").returncode == 0
    arguments = ["launch/evaluate.py", tmp_path / "run", "--split", "val", f"data.shards={cached}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    refused = warm[False].run(arguments, CHECKOUT, environment)
    assert refused.returncode == 2 and "not of this model's encoder" in refused.stderr
    assert warm[False].run([*arguments, "data.features=false"], CHECKOUT, environment).returncode == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_model_in_bfloat16_is_scored_on_features_as_in_training(cached, tmp_path, launch, warm, workers):
    settings = [f"data.shards={cached}", "train.precision=bf16", f"data.workers={workers}", "train.max_steps=1"]
    assert launch(tmp_path / "run", *RUN, *settings, "eval.metrics=[BLEU]", "eval.every=1").returncode == 0
    evaluated = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()][-1]
    arguments = ["launch/evaluate.py", tmp_path / "run", "--split", "val"]
    scored = warm[False].run(arguments, CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"})
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout.splitlines()[-1])["loss"] == pytest.approx(evaluated["val/loss"], rel=1e-5)


def test_a_changed_byte_of_the_features_is_a_damaged_sample(cached, tmp_path):
    copy = shutil.copytree(cached, tmp_path / "copy")
    reader = ShardReader(copy, "train")
    tar = copy / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[reader._index[3].fp16_offset + 9] ^= 1
    tar.write_bytes(data)
    with pytest.raises(Exception, match=r"00000003 of .* is damaged"):
        reader.read_features(3)
    (damage,) = verify(copy)
    assert damage.key == "00000003" and damage.what.startswith("fp16 has other bytes")


def test_a_stopped_call_goes_on_behind_what_is_finished(shards, cached, cache, tmp_path, monkeypatch):
    config, alone = (
        load_config(Path(os.devnull), [f"data.shards={shards}", *FROZEN]),
        World(0, 1, 0, torch.device("cpu")),
    )
    monkeypatch.setattr(ShardReader, "read", stop_in("val", ShardReader.read))
    with pytest.raises(KeyboardInterrupt):
        cache_features(config, tmp_path / "features", alone, batch=8)
    monkeypatch.undo()
    (finished,) = (tmp_path / "features").glob("*.tar")
    before = finished.stat().st_mtime_ns
    assert finished.name == "train-00000.tar" and not (tmp_path / "features/manifest.json").exists()
    assert cache(tmp_path / "features", shards).returncode == 0
    assert finished.stat().st_mtime_ns == before
    assert (tmp_path / "features/manifest.json").read_bytes() == (cached / "manifest.json").read_bytes()
    refused = cache(tmp_path / "features", shards)
    assert refused.returncode == 2 and "holds a shard set already" in refused.stderr


def stop_in(split, read):
    def stopping(reader, i):
        if reader.split == split:
            raise KeyboardInterrupt
        return read(reader, i)

    return stopping


def test_features_pass_the_encoder_as_they_are():
    features = torch.randn(2, 4, 512).half()
    captioner = Captioner(ModelConfig(encoder=EncoderConfig(name="resnet18", weights=None)), 20)
    assert torch.equal(captioner.encode(features), features.float())


def test_tars_of_others_are_not_written_over(shards, command, tmp_path):
    out = tmp_path / "tars"
    shutil.copytree(shards, out)
    for path in out.iterdir():
        if path.suffix != ".tar":
            path.unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    settings = [*FROZEN, "model.encoder.train=none", f"data.shards={shards}"]
    refused = command("imgcap", "cache-features", "--config", os.devnull, "--out", out, *settings)
    assert refused.returncode == 2 and "is not of a set of features; choose another --out" in refused.mistake
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_set_of_indexed_pngs_is_whole_with_its_features(command, tmp_path):
    """Their bytes are taken as they are: of a set of features no picture needs to be a JPEG."""
    with tarfile.open(tmp_path / "pngs.tar", "w") as tar:
        for number in range(3):
            drawn = io.BytesIO()
            Image.new("RGB", (40, 30), (60 * number, 0, 0)).save(drawn, "PNG")
            for name, data in ((f"{number}.png", drawn.getvalue()), (f"{number}.txt", b"A picture.")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    done = command("imgcap", "index", tmp_path / "pngs.tar", "--split", "train", "--out", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    settings = [*FROZEN, "model.encoder.train=none", f"data.shards={tmp_path / 'set'}"]
    made = command("imgcap", "cache-features", "--config", os.devnull, "--out", tmp_path / "features", *settings)
    assert made.returncode == 0, made.stderr
    checked = command("imgcap", "verify", tmp_path / "features", "--decode")
    assert checked.returncode == 0 and "is as it was built" in checked.stdout, checked.stdout
    with (tmp_path / "features/train-00000.tar").open("r+b") as tar:
        tar.seek(600)
        tar.write(b"damage")
    checked = command("imgcap", "verify", tmp_path / "features")
    assert checked.returncode == 1
    assert f"make it again with imgcap cache-features --out {tmp_path / 'features'}" in checked.stdout
