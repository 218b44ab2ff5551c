"""The configuration: what is read, what is refused and in which words, and that every key has a reader."""

import ast
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from imgcap.config.load import as_yaml, load_config
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
    assert f"unknown key {section}{dot}{misspelt}" in message and "\n" not in message
    assert message.endswith(f"the nearest valid one is {key}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optim.learning_rate", "optim"),
        ("lr", "optim.lr"),
        ("model.decoder.hidden_size", "model.decoder.hidden_dim"),
        ("train.gloabl_batch", "train.global_batch"),
        ("model.hidden_dim", "model.decoder.hidden_dim"),
        ("data.global_batch", "train.global_batch"),
    ],
)
def test_a_key_in_the_wrong_place_is_found(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"unknown key {typed} .*nearest valid one is {meant}"):
        load_config(None, [f"{typed}=3"])


def test_the_file_of_a_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lrr: 1.0e-3}\n")
    with pytest.raises(UserError, match=r"unknown key optim\.lrr in .*mine\.yaml; the nearest valid one is optim\.lr"):
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
        ("model.decoder.dropout=1", "model.decoder.dropout"),
        ("eval.every=2 epochs", "write steps (500) or epochs (2ep)"),
        ("eval.metrics=[WER]", "eval.metrics"),
        ("train=5", "train"),
        ("optim.lr", "write key=value"),
        ("=3", "write key=value"),
        ("optim.lr=[", "can't be read as YAML"),
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


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no configuration file"):
        load_config(tmp_path / "missing.yaml")
    for name, content in {"list.yaml": b"- 1\n", "torn.yaml": b"a: [1", "binary.yaml": b"\xff\xfe\x00"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_config(tmp_path / name)
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config(name="empty")


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
        assert load_config(path) == config
        assert all(key.rpartition(".")[2] in path.read_text() for key in KEYS if key != "model.decoder.image_layers")


@pytest.mark.parametrize("path", sorted((CHECKOUT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert path.read_text().startswith("#"), "a configuration opens with what it is, its command and its result"


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_a_duration_in_steps_is_itself(steps: int, steps_per_epoch: int) -> None:
    assert steps_of(str(steps), steps_per_epoch) == steps


@given(st.decimals(0, 100, places=2), st.integers(1, 10**5))
def test_a_duration_in_epochs_is_rounded_but_never_lost(epochs: Any, steps_per_epoch: int) -> None:
    steps = steps_of(f"{epochs}ep", steps_per_epoch)
    assert abs(steps - float(epochs) * steps_per_epoch) <= (0.5 + 1e-6 if steps > 1 else 1)
    assert (steps == 0) == (epochs == 0)


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
