"""Runs that begin with trained weights, and finished runs that go on: what they take over, and what they refuse."""

import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from imgcap.checkpoint import layout
from imgcap.config.load import as_yaml, load_config
from imgcap.errors import UserError
from imgcap.export.artefact import export_run
from imgcap.models.captioner import Captioner
from imgcap.shards.builder import build
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source
from imgcap.shards.sources import demo
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.assembly import build_vocabulary
from imgcap.training.configuration import configure
from imgcap.training.fine_tuning import FREE, initial_captioner
from imgcap.training.resumption import Resumption, as_restarted
from imgcap.types import Record

PAGE = Path(__file__).parents[2] / "docs" / "finetuning.md"
OTHERWISE = {"circle": "disc", "circles": "discs", "red": "crimson", "a": "one", "two": "both", "large": "huge"}
TRAINED, STEPS = 120, 40  # steps of the source, and of a run that begins anew
LEARNING = ["model.encoder.train=none", "model.decoder.dropout=0", "optim.lr=2e-2"]
LEARNING += ["optim.schedule=constant", "optim.warmup=5", "eval.limit=null", "eval.batch=60", "eval.beam=1"]


class Words:
    name = "split on white space"

    def __call__(self, caption):
        return caption.split()


@pytest.fixture(scope="module")
def dialect(tmp_path_factory):
    """180 scenes, 60 of them to validate, whose captions use other words for some."""
    folder = tmp_path_factory.mktemp("dialect")
    scenes = demo.read(folder / "raw", images=200).splits["train"][:180]
    said = [Record(r.image_id, r.file_name, r.path, tuple(otherwise(text) for text in r.captions)) for r in scenes]
    build(Source("dialect", {"train": said[60:], "val": said[:60]}, []), folder / "shards", Words())
    return folder / "shards"


def otherwise(caption):
    return " ".join(OTHERWISE.get(word, word) for word in caption.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def source(folder, launch):
    """A run on the demo's words, made once."""
    run = folder / "source"
    if not run.exists():
        ended = launch(run, *LEARNING, f"train.max_steps={TRAINED}", "log.every=20")
        assert ended.returncode == 0, ended.stderr
    return run


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}


def test_fine_tuning_takes_half_the_steps_and_goes_on_without_its_source(tmp_path, launch, source, dialect):
    data = [f"data.shards={dialect}", *LEARNING]
    assert launch(tmp_path / "scratch", *data, f"train.max_steps={STEPS}").returncode == 0
    moved = shutil.copytree(source, tmp_path / "moved")
    tuned = [*data, f"init_from={moved}", "vocab.adapt=extend"]
    ended = launch(tmp_path / "tuned", *tuned, "train.max_steps=10")
    assert ended.returncode == 0, ended.stderr
    words = Vocabulary.load(tmp_path / "tuned/vocab.json").words
    before = Vocabulary.load(source / "vocab.json").words
    assert words[: len(before)] == before and {"disc", "crimson", "one"} <= set(words[len(before) :])
    assert f"step {TRAINED}, which knows {len(before)} of the {len(words)} words" in ended.stderr
    shutil.rmtree(moved)
    ended = launch(tmp_path / "tuned", *tuned, f"train.max_steps={STEPS // 2}")
    assert ended.returncode == 0 and "begins with" not in ended.stderr, ended.stderr
    assert losses(tmp_path / "tuned")[STEPS // 2] < losses(tmp_path / "scratch")[STEPS]


def test_a_new_run_has_the_model_and_the_weights_of_its_source(tmp_path, source, shards):
    given = [f"init_from={source}", f"data.shards={shards}", f"run_dir={tmp_path}", "model.decoder.dropout=0.3"]
    config, _ = configure(None, [*given, "model.encoder.train=none"], "auto")
    theirs = load_config(source / "config.yaml")
    assert config.model.decoder == theirs.model.decoder.model_copy(update={"dropout": 0.3})
    assert config.model.encoder == theirs.model.encoder.model_copy(update={"train": "none"})
    model, _ = initial_captioner(config.model, source, Vocabulary.load(source / "vocab.json"))
    saved = safetensors.torch.load_file(source / f"checkpoints/step-{TRAINED:08d}/model.safetensors")
    assert all((weight == saved[name]).all() for name, weight in model.state_dict().items())
    assert isinstance(model, Captioner) and model.encoder.frozen_stages == 5


def test_an_artefact_is_a_source_too(tmp_path, source):
    artefact = tmp_path / "artefact"
    export_run(source, artefact)
    found, _ = configure(None, [f"init_from={artefact}", f"run_dir={tmp_path / 'run'}"], "auto")
    assert found.model == load_config(source / "config.yaml").model
    model, _ = initial_captioner(found.model, artefact, Vocabulary.load(source / "vocab.json"))
    weights = safetensors.torch.load_file(artefact / "model.safetensors")
    assert torch.equal(model.decoder.output.weight, weights["decoder.output.weight"])


def test_another_model_is_refused_by_its_keys(tmp_path, source):
    given = [f"init_from={source}", f"run_dir={tmp_path}", "model.decoder.hidden_dim=32", "model.encoder.name=resnet50"]
    with pytest.raises(UserError) as raised:
        configure(None, given, "auto")
    assert "model.encoder.name is resnet50, there resnet18; model.decoder.hidden_dim is 32, there 24" in str(
        raised.value
    )


def test_keys_are_those_of_the_type_of_the_source(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    theirs = load_config(None, ["model.decoder={type: lstm, image_layers: 2, layers: 2}"])
    (source / "config.yaml").write_text(as_yaml(theirs))
    given = [f"init_from={source}", f"run_dir={tmp_path / 'run'}"]
    config, _ = configure(None, [*given, "model.decoder.image_layers=2"], "auto")
    assert config.model == theirs.model
    for key, words in {
        "image_layers=1": "image_layers is 1, there 2",
        "type=attention_lstm": "type is attention_lstm",
    }.items():
        with pytest.raises(UserError, match=f"model.decoder.{words}"):
            configure(None, [*given, f"model.decoder.{key}"], "auto")


def test_a_transformer_is_gone_on_with_as_it_is(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    theirs = load_config(None, ["model.decoder={type: transformer, width: 64, heads: 4, image_layers: 1}"])
    (source / "config.yaml").write_text(as_yaml(theirs))
    given = [f"init_from={source}", f"run_dir={tmp_path / 'run'}"]
    config, _ = configure(None, [*given, "model.decoder.dropout=0.3", "model.encoder.drop_path=0.1"], "auto")
    assert config.model.decoder == theirs.model.decoder.model_copy(update={"dropout": 0.3})
    assert config.model.encoder == theirs.model.encoder.model_copy(update={"drop_path": 0.1})
    for key in ("width: 32", "max_length: 80", "tie_embeddings: false"):
        with pytest.raises(UserError, match=f"model.decoder.{key.partition(':')[0]} is .*, there"):
            configure(None, [*given, f"model.decoder={{{key}}}"], "auto")


def test_words_that_the_source_cannot_hold_are_refused(launch, tmp_path, source, dialect):
    ended = launch(tmp_path / "run", f"init_from={source}", f"data.shards={dialect}", *LEARNING)
    assert ended.returncode == 2
    counts = TokenCounts.load(ShardReader(dialect, "train").place).counts
    new = sum(word in counts for word in OTHERWISE.values())
    assert f"can't hold {new} of the data's {len(counts) + 4} entries" in ended.stderr
    assert f"'one' {counts['one']:,} times" in ended.stderr and "vocab.adapt=extend" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_the_source_s_words_are_kept_in_their_places(tmp_path, source, shards):
    config, _ = configure(None, [f"init_from={source}", f"run_dir={tmp_path}"], "auto")
    trained = Vocabulary.load(source / "vocab.json")
    counts = TokenCounts.load(ShardReader(shards, "train").place).counts
    rarer = config.vocab.model_copy(update={"min_count": 30})
    assert len(build_vocabulary(counts, rarer)) < len(trained) and build_vocabulary(counts, rarer, source) == trained


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["init_from={source}", "run_dir={source}"], "is this run itself"),
        (["init_from={source}/nothing"], "no run and no artefact"),
        (["vocab.adapt=extend"], "name it by init_from"),
    ],
)
def test_sources_that_are_none(tmp_path, source, overrides, words):
    with pytest.raises(UserError, match=words):
        configure(None, [f"run_dir={tmp_path}", *(text.format(source=source) for text in overrides)], "auto")


def test_a_finished_run_goes_on_for_more_epochs(tmp_path, launch, metrics):
    run = tmp_path / "run"  # 8 steps an epoch
    assert launch(run, "train.epochs=1").returncode == 0
    more = launch(run, "train.epochs+=1")
    assert more.returncode == 0, more.stderr
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["epochs"] == 2
    assert sorted(metrics(run)) == list(range(1, 17))
    again, _ = configure(run / "config.yaml", ["train.epochs+=3"], "auto")
    assert again.train.epochs == 5
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("epochs: 2", "epochs: 5"))
    interrupted, _ = configure(None, [f"run_dir={run}", "train.epochs+=3"], "auto")
    assert interrupted.train.epochs == 5, "the same command again goes on to the same end"


@pytest.mark.parametrize(
    "override, resume, words",
    [
        ("train.epochs+=5", "auto", r"the length of .* is given by train\.max_steps=120; write train\.max_steps\+=N"),
        ("train.max_steps+=5", "no", "leave out --resume no"),
        ("train.max_steps+=-5", "auto", r"\+= takes a number"),
        ("optim.lr+=1", "auto", r"lengthens train\.epochs or train\.max_steps"),
    ],
)
def test_what_cannot_be_lengthened(source, override, resume, words):
    with pytest.raises(UserError, match=words):
        configure(None, [f"run_dir={source}", override], resume)


def test_steps_are_lengthened_where_they_bound_a_run_and_its_checkpoint_is_read_once(source, tmp_path, monkeypatch):
    verified, verify = [], layout.Record.verify
    monkeypatch.setattr(
        layout.Record, "verify", lambda record, folder: (verified.append(folder), verify(record, folder))
    )
    config, resumption = configure(None, [f"run_dir={source}", "train.max_steps+=5"], "auto")
    assert config.train.max_steps == TRAINED + 5
    assert resumption.agreed().step == TRAINED and verified == [resumption.checkpoint.path]
    with pytest.raises(UserError, match=r"has no checkpoint; write train\.max_steps=N"):
        configure(None, [f"run_dir={tmp_path}", "train.max_steps+=5"], "auto")


def test_a_run_begins_once_it_has_a_checkpoint(source, tmp_path):
    for resume, begun in {"auto": True, "no": False, str(tmp_path): True}.items():
        assert Resumption(source, resume).begun == begun and not Resumption(tmp_path, resume).begun
    assert Resumption(source, "no").checkpoint is Resumption(tmp_path, "auto").checkpoint is None
    folder = source / f"checkpoints/step-{TRAINED:08d}"
    for path in (source, folder):
        assert Resumption(tmp_path, str(path)).checkpoint.path == folder


def test_a_launcher_s_restart_goes_on(source, tmp_path, monkeypatch, capsys):
    """It repeats the words of the first start, which would set aside, or leave, what was saved since."""
    for resume in ("no", str(source)):
        assert as_restarted(resume, source) == resume
        for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"):
            with monkeypatch.context() as restarted:
                restarted.setenv(name, "1")
                assert as_restarted(resume, source) == "auto" and as_restarted(resume, tmp_path) == resume
                assert f"--resume {resume} was for the first start" in capsys.readouterr().err


def test_the_page_names_every_key_that_may_differ():
    (told,) = (part for part in PAGE.read_text().split("\n\n") if "**The model**" in part)
    named = re.findall(r"`(?:model\.\w+)?\.(\w+)`", told)
    assert sorted(named) == sorted(key for keys in FREE.values() for key in keys)
