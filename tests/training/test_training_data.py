"""Training on several shard sets and on streams, as a user starts it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import CHECKOUT

from imgcap.checkpoint.load import load_checkpoint
from imgcap.config.data import DataConfig
from imgcap.ranks.world import World
from imgcap.shards.token_counts import TokenCounts
from imgcap.training.training_data import open_training_data


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second set, of other scenes."""
    folder = tmp_path_factory.mktemp("shards") / "other"
    command = [sys.executable, "tools/build_shards.py", "demo", "--out", str(folder), "--limit", "40", "--workers", "1"]
    subprocess.run([*command, "--seed", "9"], cwd=CHECKOUT, check=True, capture_output=True)
    return folder


def hashes(metrics, run):
    return {step: line["train/batch_hash"] for step, line in metrics(run).items()}


@pytest.mark.dist
def test_a_mixture_is_the_same_on_any_number_of_ranks_and_after_a_resume(tmp_path, launch, metrics, other):
    mixed = ["train.max_steps=16", "checkpoint.every=7", f"data.also={{{other}: 0.5}}"]
    alone = launch(tmp_path / "alone", *mixed)
    assert alone.returncode == 0, alone.stderr
    for ranks, steps in ((2, 7), (1, 16)):
        part = launch(tmp_path / "parts", *mixed, f"train.max_steps={steps}", ranks=ranks)
        assert part.returncode == 0, part.stderr
    assert hashes(metrics, tmp_path / "parts") == hashes(metrics, tmp_path / "alone")
    again = launch(tmp_path / "alone", *mixed, f"data.also={{{other}: 0.25}}", "train.max_steps=20")
    assert again.returncode == 2 and "data.also" in again.stderr


def test_a_mixture_has_the_words_and_the_images_of_all_its_sets(tmp_path, launch, shards, other):
    shown = launch(tmp_path / "run", f"data.also={{{other}: 2}}", options=["--dry-run"])
    images = [
        json.loads((folder / "manifest.json").read_text())["splits"]["train"]["images"] for folder in (shards, other)
    ]
    assert json.loads(shown.stdout)["images"] == images[0] + 2 * images[1]


@pytest.mark.dist
def test_a_stream_trains_on_ranks_and_says_that_it_is_not_exact(tmp_path, launch, metrics, other):
    stream = ["data.mode=stream", f"data.stream={other}/train-*.tar", "data.stream_epoch=40", "data.workers=1"]
    stream += ["checkpoint.every=4", "log.tensorboard=true"]
    run = tmp_path / "run"
    for ranks, steps in ((2, 4), (1, 8)):
        ended = launch(run, *stream, f"train.max_steps={steps}", ranks=ranks)
        assert ended.returncode == 0, ended.stderr
        assert "order of a stream is not exact" in ended.stderr
    lines = metrics(run)
    assert list(lines) == list(range(1, 9)) and {line["epoch"] for line in lines.values()} == {0, 1}
    assert load_checkpoint(run / "checkpoints", "latest").state["plan"]["exact"] is False
    back = launch(run, "train.max_steps=12")
    assert back.returncode == 2 and "begin anew with --resume no" in back.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["data.mode=stream"], "go together"),
        (["data.stream=x.tar"], "go together"),
        (["data.mode=stream", "data.stream=nowhere/{0..3}.tar"], "there is no nowhere/0.tar"),
        (["data.mode=stream", "data.stream='pipe:cat x'"], "data.pipes=true"),
        (["data.also={nowhere: 1}"], "nowhere"),
        (["data.also={nowhere: 0}"], "above 0"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, launch, settings, told):
    ended = launch(tmp_path / "run", *settings)
    assert ended.returncode == 2 and told in ended.stderr and "Traceback" not in ended.stderr


def test_safe_augmentation_says_once_where_it_mirrors_nothing(tmp_path, shards, capfd):
    """A set of a language without a list, opened on two ranks, of which one speaks."""
    own = shutil.copytree(shards, tmp_path / "set")
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["language"] = "xx"
    (own / "manifest.json").write_text(json.dumps(manifest))
    for language, folder, times in (("xx", own, 1), ("en", shards, 0)):
        data = DataConfig(shards=str(folder), augment="safe", language=language)
        for rank in range(2):
            world = World(rank, 2, rank, torch.device("cpu"))
            open_training_data(data, 8, 0, world, "val")
        told = capfd.readouterr().err
        assert told.count("data.augment=safe mirrors no picture") == times, told


def test_a_vocabulary_that_leaves_many_words_out_is_told_where_it_is_made(tmp_path, launch, shards):
    counts = TokenCounts.load(shards).counts
    assert "<unk>" not in launch(tmp_path / "run", options=["--dry-run"]).stderr
    shown = launch(tmp_path / "run", "vocab.min_count=100", options=["--dry-run"])
    left = {word: count for word, count in counts.items() if count >= 100}
    share = 1 - sum(left.values()) / sum(counts.values())
    assert shown.returncode == 0 and share > 0.05
    line = f"vocab.min_count=100 makes {share:.1%} of the words in train <unk>, {len(left)} of "
    assert line in shown.stderr
    refused = launch(tmp_path / "run", f"vocab.min_count={max(counts.values()) + 1}", options=["--dry-run"])
    assert refused.returncode == 2 and "no word of the train split's" in refused.stderr
