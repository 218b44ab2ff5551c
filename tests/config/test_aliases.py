"""What other programs call our keys: answered with ours, on the command line and in a file, and never taken."""

from pathlib import Path

import pytest

from imgcap.config.aliases import ALIASES, ELSEWHERE, aliases_of
from imgcap.config.keys import fields_of
from imgcap.config.load import load_config
from imgcap.config.run import Config
from imgcap.errors import UserError

FIELDS = fields_of(Config)
ALIASED = list(dict.fromkeys(alias for aliases in ALIASES.values() for alias in aliases.split()))


def answer(typed: str, path: Path | None = None) -> str:
    with pytest.raises(UserError) as raised:
        load_config(path, [] if path else [f"{typed}=3"])
    return str(raised.value)


@pytest.mark.parametrize("key", ALIASES)
def test_aliases_lead_to_keys_that_exist(key: str) -> None:
    name, equals, value = key.partition("=")
    assert FIELDS[name].description
    assert not equals or load_config(None, [f"{name}={value}"])
    assert aliases_of(name)


@pytest.mark.parametrize("alias", [*ALIASED, *ELSEWHERE])
def test_no_alias_hides_a_key(alias: str) -> None:
    assert alias not in FIELDS and not {alias} & {name for name in ELSEWHERE if alias in ALIASED}


@pytest.mark.parametrize("alias", ALIASED)
def test_an_alias_is_answered_with_the_key_and_its_meaning(alias: str, tmp_path: Path) -> None:
    key = next(key for key, aliases in ALIASES.items() if alias in aliases.split())
    told = f"is `{key}` here ({FIELDS[key.partition('=')[0]].description})"
    assert answer(alias) == f"`{alias}` on the command line {told}"
    path = tmp_path / "mine.yaml"
    path.write_text(f"seed: 1\n{alias}: 3\n")
    assert answer(alias, path) == f"`{alias}` in {path}:2 {told}"


@pytest.mark.parametrize("alias", [alias for alias in ELSEWHERE if alias != "base"])
def test_what_is_no_key_is_said(alias: str) -> None:
    assert answer(alias) == f"`{alias}` on the command line is no key; it is {ELSEWHERE[alias]}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("eval.batch_size", "eval.batch"),
        ("train.batch_size", "train.global_batch"),
        ("optim.patience", "optim.plateau_patience"),
        ("optim.learning_rate", "optim.lr"),
        ("Batch-Size", "train.global_batch"),
        ("batchSize", "train.global_batch"),
        ("model.decoder.hidden_size", "model.decoder.hidden_dim"),
        ("model.name", "model.encoder.name"),
        ("epochs", "train.epochs"),
        ("image_size", "data.image_size"),
        ("dropout", "model.decoder.dropout"),
        ("embed_dim", "model.decoder.embed_dim"),
        ("weight_decay", "optim.weight_decay"),
    ],
)
def test_the_section_and_the_spelling_are_heard(typed: str, meant: str) -> None:
    assert answer(typed).startswith(f"`{typed}` on the command line is `{meant}` here (")
