"""Starts of a run: which of them write its configuration, which are refused, and what each leaves behind."""

import json
import os
import shutil

import pytest
import yaml

from imgcap.config.changes import MAY_CHANGE, changes
from imgcap.config.describe import reference
from imgcap.config.load import load_config
from imgcap.errors import UserError
from imgcap.models.trained import config_of
from imgcap.training.configuration import configure

STEPS = 2
FIXED = {
    "data": (
        "mode",
        "stream",
        "stream_epoch",
        "stream_buffer",
        "image_size",
        "interpolation",
        "captions_per_image",
        "max_tokens",
        "augment",
        "language",
        "block",
    ),
    "vocab": ("size", "min_count", "oov", "adapt"),
    "model.encoder": ("name", "train", "output_stride", "input_size", "tokens", "drop_path"),
    "model.decoder": (
        "type",
        "layers",
        "embed_dim",
        "hidden_dim",
        "dropout",
        "image_layers",
        "attention_dim",
        "query",
        "attention",
        "init_state",
        "gate",
        "output",
        "feature_dim",
        "width",
        "heads",
        "feedforward",
        "tie_embeddings",
        "max_length",
        "grid_positions",
    ),
    "train": ("global_batch", "objective", "objective_from", "label_smoothing", "attention_penalty", "ema", "unfreeze"),
    "train.self_critical": (
        "samples",
        "baseline",
        "reward",
        "end_token",
        "temperature",
        "dropout",
        "cross_entropy",
        "kl",
    ),
    "train.teacher_forcing": ("sampling",),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def finished(runs, launch, tmp_path):
    """A copy of a run of two steps; the run was made once."""
    if not (runs / "run").exists():
        ended = launch(runs / "run", f"train.max_steps={STEPS}", "checkpoint.every=1")
        assert ended.returncode == 0, ended.stderr
    return shutil.copytree(runs / "run", tmp_path / "run")


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def starts(run):
    return [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]


def test_a_start_that_trains_nothing_leaves_the_run_as_it_was(launch, finished):
    """On af5af11 it rewrote config.yaml, and the unchanged weights then captioned with one beam, and anew."""
    before = content(finished)
    ended = launch(finished, f"train.max_steps={STEPS}", "checkpoint.every=1", "eval.beam=1", "optim.lr=1e-5")
    assert ended.returncode == 0 and "is finished" in ended.stderr, ended.stderr
    assert "nothing is trained with other values (optim.lr 0.0004 -> 1e-05; eval.beam 2 -> 1)" in ended.stderr
    assert f"run_dir={finished}-2 begins another run" in ended.stderr
    assert content(finished) == before and config_of(finished).eval.beam == 2


@pytest.mark.parametrize(
    "override, told",
    [
        ("data.image_size=64", "data.image_size 32 -> 64"),
        ("data.max_tokens=9", "data.max_tokens 20 -> 9"),
        ("data.augment=off", "data.augment light -> off"),
        ("model.decoder.dropout=0.3", "model.decoder.dropout 0.5 -> 0.3"),
    ],
)
@pytest.mark.parametrize("steps", [STEPS, STEPS + 2], ids=["finished", "going on"])
def test_a_run_of_other_values_is_refused_key_by_key(launch, finished, override, told, steps):
    """On af5af11 each of these was taken without a word."""
    before = content(finished)
    ended = launch(finished, f"train.max_steps={steps}", "checkpoint.every=1", override)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"error: {finished} was trained with other values: {told}; ")
    assert f"run_dir={finished}-2, or begin anew with --resume no" in ended.stderr
    assert f"by --change {told.split()[0]}" in ended.stderr
    assert content(finished) == before


def test_what_is_named_by_change_goes_on_and_is_written_down(launch, finished):
    options = ["--change", "data.image_size", "--change", "data.augment,model.decoder.dropout"]
    given = [f"train.max_steps={STEPS + 1}", "data.image_size=64", "data.augment=off", "optim.lr=1e-5"]
    ended = launch(finished, *given, "checkpoint.every=1", options=options)
    assert ended.returncode == 0, ended.stderr
    told = "data.image_size 32 -> 64; data.augment light -> off; train.max_steps 2 -> 3; optim.lr 0.0004 -> 1e-05"
    assert f"{finished} goes on with other values: {told}" in ended.stderr
    first, second = starts(finished)
    assert (first["step"], first["checkpoint"], first["changed"]) == (0, None, {})
    assert second["step"] == STEPS and second["checkpoint"].endswith(f"run/checkpoints/step-{STEPS:08d}")
    assert second["changed"]["data.image_size"] == [32, 64] and second["changed"]["optim.lr"] == [4e-4, 1e-5]
    assert second["world_size"] == 1 and "data.image_size=64" in second["command"] and second["imgcap"]
    config = config_of(finished)
    assert config.data.image_size == 64 and config.optim.lr == 1e-5
    again = launch(finished, *given, "checkpoint.every=1", options=options)
    assert again.returncode == 0 and "other values" not in again.stderr, "the same command again"
    assert len(starts(finished)) == 2


def test_a_run_without_starts_goes_on(launch, finished):
    """Runs of 0.1.0 have none, and a configuration that lacks newer keys."""
    (finished / "starts.jsonl").unlink()
    kept = yaml.safe_load((finished / "config.yaml").read_text())
    del kept["log"]["wandb"], kept["train"]["capture"], kept["eval"]["no_repeat_ngram"]
    (finished / "config.yaml").write_text(yaml.safe_dump(kept))
    ended = launch(finished, f"train.max_steps={STEPS + 1}", "checkpoint.every=1")
    assert ended.returncode == 0, ended.stderr
    assert [start["step"] for start in starts(finished)] == [STEPS]
    assert starts(finished)[0]["changed"] == {"train.max_steps": [STEPS, STEPS + 1]}


def test_a_resume_of_the_same_values_writes_no_configuration(launch, finished):
    shutil.rmtree(finished / f"checkpoints/step-{STEPS:08d}")
    (finished / "config.yaml").write_text("# mine\n" + (finished / "config.yaml").read_text())
    ended = launch(finished, f"train.max_steps={STEPS}", "checkpoint.every=1")
    assert ended.returncode == 0 and "other values" not in ended.stderr, ended.stderr
    assert (finished / "config.yaml").read_text().startswith("# mine\n")
    assert [start["step"] for start in starts(finished)] == [0, 1]


def test_a_named_checkpoint_is_compared_with_the_run_it_lies_in(launch, finished, tmp_path):
    for place in (finished, finished / "checkpoints/step-00000001"):
        refused = launch(tmp_path / "new", "data.max_tokens=9", options=["--resume", place])
        assert refused.returncode == 2 and f"error: {place} was trained with other values: data.max_tokens 20 -> 9" in (
            refused.stderr
        )
        assert not (tmp_path / "new").exists()
    options = ["--resume", finished / "checkpoints/step-00000001", "--change", "data"]
    ended = launch(tmp_path / "new", "data.max_tokens=9", f"train.max_steps={STEPS}", options=options)
    assert ended.returncode == 0, ended.stderr
    assert config_of(tmp_path / "new").data.max_tokens == 9


def test_what_an_earlier_start_without_a_checkpoint_left_is_no_configuration_of_the_run(launch, finished, tmp_path):
    """A start that ended before its first checkpoint left its values beside the weights of a named checkpoint."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new/config.yaml").write_text((finished / "config.yaml").read_text().replace("beam: 2", "beam: 7"))
    options = ["--resume", finished / "checkpoints/step-00000001"]
    ended = launch(tmp_path / "new", f"train.max_steps={STEPS}", "checkpoint.every=1", options=options)
    assert ended.returncode == 0 and config_of(tmp_path / "new").eval.beam == 2, ended.stderr


def test_another_name_is_one_that_is_free(finished):
    (finished.parent / "run-2").mkdir()
    config, resumption = configure(None, [f"run_dir={finished}", "seed=1"], "auto")
    with pytest.raises(UserError, match=f"seed 0 -> 1.*run_dir={finished}-3"):
        resumption.accepted(config)


def test_a_new_run_in_the_place_of_another_is_offered_a_name(finished, monkeypatch):
    """On af5af11 `imgcap train --config mine.yaml` went on with the demo where both were called so."""
    monkeypatch.chdir(finished.parent)
    (finished.parent / "runs").mkdir()
    finished.rename("runs/mine")
    others = ["model.decoder.type=lstm", "seed=1", "vocab.min_count=2", "train.ema=0.9", "data.max_tokens=9"]
    config, resumption = configure(None, ["name=mine", *others], "auto")
    with pytest.raises(
        UserError, match=r"^runs/mine was trained .* or train another run with name=mine-2 \(runs/mine-2\)"
    ) as told:
        resumption.accepted(config)
    assert "model.decoder.type attention_lstm -> lstm" in str(told.value) and "attention_dim" not in str(told.value)
    assert str(told.value).count(" -> ") == 8 and str(told.value).count(" more; restore them, or ") == 1


def test_a_file_that_names_no_run_gives_its_own_name(tmp_path):
    """On af5af11 each of them trained in runs/demo."""
    (tmp_path / "birds.yaml").write_text("data: {image_size: 64}\n")
    assert str(load_config(tmp_path / "birds.yaml").run_path) == "runs/birds"
    assert load_config(tmp_path / "birds.yaml", ["name=owls"]).name == "owls"
    (tmp_path / "birds.yaml").write_text("name: finches\n")
    assert load_config(tmp_path / "birds.yaml").name == "finches" and load_config().name == "demo"


@pytest.mark.parametrize(
    "override",
    [
        "vocab.min_count=2",
        "seed=1",
        "data.language=fr",
        "train.global_batch=4",
        "model.encoder.train=all",
        "train.ema=0.9",
    ],
)
def test_what_makes_a_run_another_may_not_change(override):
    (change,) = changes(load_config(), load_config(None, [override]))
    assert change.key == override.partition("=")[0] and change.key not in MAY_CHANGE


def test_every_key_may_change_or_may_not():
    """A new key may not, and is to be put on this list or on that of `imgcap.config.changes`."""
    fixed = {f"{section}.{key}" for section, names in FIXED.items() for key in names} | {"init_from", "seed", "run_dir"}
    keys = {key.name.partition(" ")[0] for key in reference()}
    assert keys - MAY_CHANGE == fixed and keys >= MAY_CHANGE


def test_keys_that_are_none_are_not_changed(tmp_path):
    with pytest.raises(UserError, match=r"`data.imagesize` .* is `data.image_size` here"):
        configure(None, [f"run_dir={tmp_path}"], "auto", ["data.imagesize"])


def test_where_a_run_lies_is_no_difference(tmp_path):
    assert changes(load_config(), load_config(None, [f"run_dir={tmp_path}"])) == []
    assert [str(change) for change in changes(load_config(), load_config(None, ["train.ema=0.9", "name=x"]))] == [
        "name demo -> x",
        "train.ema null -> 0.9",
    ]


@pytest.mark.dist
def test_each_start_is_a_line_of_one_rank(launch, tmp_path):
    run = tmp_path / "run"
    for ranks, steps in ((2, 2), (1, 4)):
        ended = launch(run, f"train.max_steps={steps}", f"data.workers={ranks - 1}", ranks=ranks)
        assert ended.returncode == 0, ended.stderr
    assert [(start["world_size"], start["step"]) for start in starts(run)] == [(2, 0), (1, 2)]
    assert starts(run)[1]["changed"] == {"data.workers": [1, 0], "train.max_steps": [2, 4]}
    assert not any(name.endswith(".tmp") for name in os.listdir(run))
