"""The configuration: what is read, what is refused and in which words, and that every key has a reader."""

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from imgcap.config.load import as_yaml, known_key, load_config
from imgcap.config.model import AttentionLSTMConfig
from imgcap.config.run import Config
from imgcap.config.section import steps_of
from imgcap.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def dotted_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every key that holds a value, such as `train.teacher_forcing.start`, of all types of decoder."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        below = [each for each in get_args(field.annotation) or (field.annotation,) if is_section(each)]
        keys += [key for each in below for key in dotted_keys(each, f"{prefix}{name}.")] or [prefix + name]
    return list(dict.fromkeys(keys))


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def look_up(config: BaseModel, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


KEYS = dotted_keys()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("letters", [0, 2], ids=["dropped", "doubled"])
def test_a_misspelt_key_names_the_right_one(key: str, letters: int) -> None:
    section, dot, leaf = key.rpartition(".")
    middle = len(leaf) // 2
    misspelt = leaf[:middle] + letters * leaf[middle] + leaf[middle + 1 :]
    with pytest.raises(UserError) as raised:
        load_config(None, [f"{section}{dot}{misspelt}=1"])
    message = str(raised.value)
    assert f"{section}{dot}{misspelt}" in message and "\n" not in message
    if misspelt.replace("_", "") == leaf.replace("_", ""):
        assert f"`{section}{dot}{misspelt}` on the command line is `{key}` here" in message
    else:
        assert message.endswith(
            f"unknown key {section}{dot}{misspelt} on the command line; the nearest valid one is {key}"
        )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optim.lr"),
        ("train.lr", "optim.lr"),
        ("model.hidden_dim", "model.decoder.hidden_dim"),
        ("data.global_batch", "train.global_batch"),
    ],
)
def test_a_key_in_the_wrong_place_is_found(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"^`{typed}` on the command line is `{meant}` here \("):
        load_config(None, [f"{typed}=3"])


def test_a_key_by_its_name() -> None:
    assert known_key("optim.lr") == "optim.lr" and known_key("model.encoder") == "model.encoder"
    with pytest.raises(UserError, match=r"`batch_size` on the command line is `train\.global_batch` here"):
        known_key("batch_size")


def test_the_file_of_a_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lrr: 1.0e-3}\n")
    with pytest.raises(
        UserError, match=r"unknown key optim\.lrr in .*mine\.yaml:1; the nearest valid one is optim\.lr"
    ):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optim.lr=4e-4", 4e-4),  # YAML 1.1 reads 4e-4 as a text
        ("optim.lr=1", 1.0),
        ("optim.weight_decay=.5", 0.5),
        ("train.clip_norm=null", None),
        ("train.max_steps=7", 7),
        ("data.augment=off", "off"),  # YAML 1.1 reads off as false
        ("train.compile=off", "off"),
        ("model.encoder.weights=none", None),
        ("model.encoder.weights=null", None),
        ("model.encoder.train=none", "none"),
        ("model.encoder.weights=/a/resnet.pth", "/a/resnet.pth"),
        ("model.decoder.gate=false", False),
        ("eval.metrics=[CIDEr, BLEU]", ("CIDEr", "BLEU")),
        ("eval.every=500", "500"),
        ("eval.every=0.5ep", "0.5ep"),
        ("run_dir=runs/other", Path("runs/other")),
        ("name=2024", "2024"),
        ("name=007", "007"),
        ("name=12:30:00", "12:30:00"),
        ("name=1_000", "1_000"),
        ("name=2024-05-01", "2024-05-01"),
        ("name=2024-13-45", "2024-13-45"),  # YAML begins to read a date
        ("name=on", "on"),
        ("name='null'", "null"),
        ("name='a b'", "a b"),
        ("name=a: [b", "a: [b"),
        ("data.shards=0123", "0123"),
        ("data.shards=s3://a/b#c", "s3://a/b#c"),
        ("model.encoder.train=off", "off"),
        ("eval.metrics=BLEU,CIDEr", ("BLEU", "CIDEr")),
        ("eval.metrics=BLEU, CIDEr", ("BLEU", "CIDEr")),
        ("eval.metrics=[BLEU,CIDEr]", ("BLEU", "CIDEr")),
        ("eval.metrics='BLEU,CIDEr'", ("BLEU", "CIDEr")),
        ("eval.metrics=CIDEr", ("CIDEr",)),
        ("eval.metrics=[]", ()),
        ("train.max_steps=0100", 100),  # YAML 1.1 reads 64
        ("train.max_steps=1_000", 1000),
        ("train.max_steps=1e3", 1000),
        ("model.encoder.output_stride=16", 16),
        ("model.decoder.gate=off", False),
        ("engine.offload=null", "none"),
        ("data.stream=", None),
    ],
)
def test_overrides_become_what_they_look_like(override: str, value: Any) -> None:
    key = override.partition("=")[0]
    found = look_up(load_config(None, [override]), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr=0", "optim.lr"),
        ("train.global_batch=0", "train.global_batch"),
        ("train.global_batch=2.5", "train.global_batch"),
        ("train.precision=int8", "train.precision"),
        ("data.augment=safer", "data.augment"),
        ("model.decoder.dropout=1", "model.decoder.dropout"),
        ("eval.every=2 epochs", "write steps (500) or epochs (2ep)"),
        ("eval.metrics=[WER]", "eval.metrics"),
        ("train=5", "train"),
        ("optim.lr", "write key=value"),
        ("=3", "write key=value"),
        ("optim.lr=[", "the value of optim.lr can't be read: the command line is no YAML"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(None, [override])
    assert words in str(raised.value)


def test_sections_are_checked_against_each_other() -> None:
    with pytest.raises(UserError, match=r"eval\.metrics must hold CIDEr"):
        load_config(None, ["train.early_stopping.patience=2", "eval.metrics=[BLEU]"])
    with pytest.raises(UserError, match=r"attention_penalty needs a decoder that attends"):
        load_config(None, ["train.attention_penalty=1", "model.decoder.type=lstm"])
    with pytest.raises(UserError, match=r"dot is for query=after"):
        load_config(None, ["model.decoder.attention=dot"])
    with pytest.raises(UserError, match=r"query=after is for type=attention_lstm"):
        load_config(None, ["model.decoder.type=lstm", "model.decoder.query=after"])


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 1.0e-3, warmup: 100}\nmodel: {decoder: {layers: 2}}\n")
    config = load_config(path, ["optim.lr=2e-3", "model.decoder.gate=false", "optim.lr=3e-3"])
    assert (config.optim.lr, config.optim.warmup) == (3e-3, "100")
    assert (config.model.decoder.layers, config.model.decoder.gate) == (2, False)
    assert config.train == Config().train


def test_a_saved_configuration_is_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    overrides = ["run_dir=runs/a b", "model.encoder.weights=none", "eval.metrics=[BLEU]", "train.clip_norm=null"]
    for config in (Config(), load_config(None, [*overrides, "optim.lr=1e-5", "eval.every=2ep"])):
        path.write_text(as_yaml(config))
        assert load_config(path) == config and as_yaml(load_config(path)) == path.read_text()
        attending = [key for key in KEYS if not key.startswith("model.decoder.")]
        attending += [f"model.decoder.{key}" for key in AttentionLSTMConfig.model_fields]
        assert all(key.rpartition(".")[2] in path.read_text() for key in attending)


@pytest.mark.parametrize("path", sorted((CHECKOUT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert header.startswith("# ") and re.search(r"^#   (.* )?(imgcap train|make demo)", header, re.MULTILINE)
    assert "\n# Result" in header, "a configuration's header says its command, and its result or that none is measured"
    assert not re.search(r"(BLEU-\d|METEOR|ROUGE-L) \d\d", header), "scores are from 0 to 1"


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_a_duration_in_steps_is_itself(steps: int, steps_per_epoch: int) -> None:
    assert steps_of(str(steps), steps_per_epoch) == steps


@given(st.decimals(0, 100, places=2), st.integers(1, 10**5))
def test_a_duration_in_epochs_is_rounded_but_never_lost(epochs: Any, steps_per_epoch: int) -> None:
    steps = steps_of(f"{epochs}ep", steps_per_epoch)
    assert abs(steps - float(epochs) * steps_per_epoch) <= (0.5 + 1e-6 if steps > 1 else 1)
    assert (steps == 0) == (epochs == 0)


@pytest.mark.parametrize("given", ["eval.every=1_000", "eval.every='1_000'", "eval={every: 1_000}"])
def test_a_duration_in_thousands(given: str) -> None:
    assert load_config(None, [given]).eval.every == "1000"


@pytest.mark.parametrize("text", ["-1", "1.5", "2 ep", "ep", "two", "1epoch", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match="no duration"):
        load_config(None, [f"eval.every={text!r}"])


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().optim.lr = 1.0  # type: ignore[misc]


def attributes_read() -> set[str]:
    """Every name that is read as an attribute anywhere but in imgcap/config."""
    read: set[str] = set()
    for folder in ("imgcap", "launch", "tools"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            if path.parent.name != "config":
                tree = ast.parse(path.read_text())
                read |= {
                    node.attr
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
                }
    return read


def test_every_key_has_a_reader() -> None:
    through_a_property = {"name", "run_dir"}  # Config.run_path
    read = attributes_read() | through_a_property
    assert not [key for key in KEYS if key.rpartition(".")[2] not in read]


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["train.self_critical.samples=1"], "one sample has no others to be held against; set samples to 2 or more"),
        (["train.self_critical.reward.METEOR=1"], "METEOR is no score that can be rewarded"),
        (["train.self_critical.reward.CIDEr-D=1"], "the nearest is 'CIDEr' (there are CIDEr, BLEU-1,"),
        (["train.self_critical.reward.CIDEr=0"], "reward gives no score a weight; set reward.CIDEr=1"),
        (["train.self_critical.cross_entropy=1"], "train.self_critical.cross_entropy"),
        (["train.objective_from=2ep"], "set train.objective=self_critical too"),
        (["train.self_critical.samples=9"], "is of train.objective=self_critical; set that too, or leave it out"),
        (
            ["train.objective=self_critical", "data.mode=stream", "data.stream=x.tar"],
            "which a stream doesn't have; set data.mode=index",
        ),
        (["train.objective=self_critical", "vocab.oov=characters"], "rewards whole words, and vocab.oov=characters"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_self_critical_training_that_cannot_be_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(None, overrides)
    assert told in str(refused.value)
    greedy = ["train.objective=self_critical", "train.self_critical={samples: 1, baseline: greedy}"]
    assert load_config(None, greedy).train.self_critical.samples == 1
