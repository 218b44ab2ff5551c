"""The reference of all keys: nothing is left out, it fits a terminal, and the pages in docs/ are of today."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from imgcap.config.decoding import DecodeOptions
from imgcap.config.describe import as_markdown, as_text, config_text, json_schema, reference
from imgcap.config.load import as_yaml, load_config
from imgcap.config.model import DECODERS
from imgcap.config.run import Config
from imgcap.config.section import sections_in
from imgcap.config.themes import START_HERE, THEMES, theme_of
from imgcap.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CONFIGS = sorted((CHECKOUT / "configs").glob("*.yaml"))
RENEW = "IMGCAP_RENEW_DOCS=1 python -m pytest -q tests/config/test_describe.py"
KEYS = reference()


def leaves(tree: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in tree.items():
        a_map = prefix + name in ("data.also", "train.unfreeze", "train.self_critical.reward", "engine.deepspeed")
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and not a_map else {prefix + name}
    return found


def fields(section: type[BaseModel], prefix: str = "") -> list[tuple[str, str | None]]:
    """Each key with what it means; what a section means is its docstring."""
    found = []
    for name, field in section.model_fields.items():
        below = sections_in(field.annotation)
        for each in below:
            found += [(prefix + name, each.__doc__), *fields(each, f"{prefix}{name}.")]
        found += [] if below else [(prefix + name, field.description)]
    return found


@pytest.mark.parametrize(("key", "meaning"), [*fields(Config), *fields(DecodeOptions, "decoding.")])
def test_every_key_has_a_meaning_of_one_line(key: str, meaning: str | None) -> None:
    assert meaning and "\n" not in meaning.strip() and len(meaning) <= 120
    assert "attention_lstm." not in key


def test_the_reference_has_every_key_once_with_its_default() -> None:
    for kind in DECODERS:
        others = tuple(f"({other})" for other in DECODERS if other != kind)
        of_kind = {key.name.split()[0] for key in KEYS if not key.name.endswith(others)}
        assert of_kind == leaves(load_config(None, [f"model.decoder.type={kind}"]).model_dump(mode="json"))
    assert len({key.name for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_default_can_be_given_as_it_is_shown(key: Any) -> None:
    name, _, of_type = key.name.partition(" ")
    kind = [f"model.decoder.type={of_type.strip('()')}"] if of_type else []
    assert load_config(None, [*kind, f"{name}={key.default}"]) == load_config(None, kind)


def test_the_text_fits_and_breaks_no_word() -> None:
    lines = as_text().splitlines()
    assert max(map(len, lines)) <= 120
    words = set(as_text().split())
    for key in KEYS:
        assert {key.name.split()[0], *key.default.split(), *key.meaning.split()} <= words


def test_what_the_command_prints() -> None:
    assert config_text([]) == as_text()
    assert json.loads(config_text([], schema=True)) == json_schema()
    path = CHECKOUT / "configs/demo.yaml"
    shown = config_text([str(path), "optim.lr=1"])
    assert yaml.safe_load(shown) == yaml.safe_load(as_yaml(load_config(path, ["optim.lr=1"])))
    assert "  lr: 1.0  # the command line\n" in shown and "\nseed: 0\n" in shown
    line = path.read_text().splitlines().index("  max_steps: 580") + 1
    assert f"  max_steps: 580  # {path}:{line}\n" in shown


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["batch_size"], {"train.global_batch", "eval.batch", "train.micro_batch"}),
        (["Early", "stopping", "patience"], {"train.early_stopping.patience"}),
        (["gradient", "norm"], {"train.clip_norm"}),
        (["checkpoint.keep"], {"checkpoint.keep"}),
    ],
)
def test_keys_are_found_by_words(words: list[str], keys: set[str]) -> None:
    shown = {line.split()[0] for line in config_text(words).splitlines()[1:] if "." in line.split(" ")[0]}
    assert shown == keys


def test_a_word_that_finds_nothing_is_answered() -> None:
    with pytest.raises(UserError, match=r"no key has 'flickr8' in its name or meaning.*flickr8k"):
        config_text(["flickr8"])
    with pytest.raises(UserError, match="gpus is no key; it is said to the launcher"):
        config_text(["gpus"])
    with pytest.raises(
        UserError, match="no configuration file flickr8; the nearest that comes with imgcap is flickr8k"
    ):
        config_text(["flickr8", "seed=1"])
    with pytest.raises(UserError, match="seed is no override"):
        config_text(["demo", "seed"])


def test_every_key_is_in_one_theme() -> None:
    """A key of a new section would be found under The run, where only the run's own are."""
    assert [key.name for key in KEYS if theme_of(key.name) == THEMES[0]] == ["name", "run_dir", "seed"]
    assert {theme_of(key.name) for key in KEYS} == set(THEMES)
    sections = {name for name, _ in fields(Config)} | {key.dotted for key in KEYS}
    assert {name for theme in THEMES for name in theme.keys} - {""} <= sections
    assert set(START_HERE) <= {key.name for key in KEYS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_schema_takes_what_we_take(path: Path) -> None:
    check = jsonschema.Draft202012Validator(json_schema())
    check.check_schema(check.schema)
    check.validate(yaml.safe_load(path.read_text()))
    check.validate(yaml.safe_load(as_yaml(load_config(path))))


@pytest.mark.parametrize(
    "mistake",
    [
        {"optim": {"lrr": 1}},
        {"optim": {"lr": 0}},
        {"eval": {"every": "2 epochs"}},
        {"model": {"decoder": {"type": "lstm", "gate": True}}},
        {"model": {"decoder": {"image_layers": 2}}},
        {"train": {"unfreeze": {"layer4": "1 epoch"}}},
    ],
)
def test_the_schema_finds_mistakes(mistake: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(mistake, json_schema())


@pytest.mark.parametrize("name", ["configuration.md", "config.schema.json"])
def test_the_pages_in_docs_are_of_today(name: str) -> None:
    page = CHECKOUT / "docs" / name
    now = as_markdown() if page.suffix == ".md" else config_text([], schema=True)
    if os.environ.get("IMGCAP_RENEW_DOCS"):
        page.write_text(now, encoding="utf-8")
    assert page.exists() and page.read_text(encoding="utf-8") == now, f"docs/{name} is stale; renew it by: {RENEW}"
