"""A value that doesn't fit, for every key: one plain line with key, place, what is allowed and what was found."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgcap.config.describe import Key, reference
from imgcap.config.load import load_config
from imgcap.errors import UserError

KEYS = reference()
OPEN = ("engine.deepspeed",)  # takes anything below it
PYDANTIC = re.compile(
    r"[Ii]nput should|valid (integer|number|string|boolean|dictionary|tuple)|parse|greater than|pydantic"
)
WRONG: dict[str, Any] = {"text": "hello", "number": -1.5, "list": [1, 2], "map": {"a": {"b": 1}}, "null": None}


def takes(key: Key, kind: str) -> bool:
    """Whether the reference says that a key takes such a value."""
    name, null, _ = key.type.partition(" or null")
    return (
        (kind == "null" and (bool(null) or key.dotted == "engine.offload"))
        or (kind in ("text", "number") and name in ("text", "path"))
        or (kind == "map" and key.dotted in OPEN)
    )


def file_of(key: Key, value: Any, folder: Path) -> Path:
    """A file whose line 2 gives a key, with the type of decoder that has it."""
    tree: dict[str, Any] = {}
    *sections, leaf = key.dotted.split(".")
    below = tree
    for section in sections:
        below = below.setdefault(section, {})
    if "(" in key.name:
        below["type"] = key.name.split("(")[1][:-1]
    below[leaf] = value
    path = folder / "mine.yaml"
    path.write_text("# line 1\n" + yaml.safe_dump(tree, default_flow_style=True, sort_keys=False, width=1000))
    return path


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_value_of_the_wrong_kind(key: Key, kind: str, tmp_path: Path) -> None:
    path = file_of(key, WRONG[kind], tmp_path)
    if takes(key, kind):
        load_config(path, ["data.mode=stream"] if key.dotted == "data.stream" and kind != "null" else [])
        return
    with pytest.raises(UserError) as raised:
        load_config(path)
    message = str(raised.value)
    assert key.dotted in message and f"{path}:2" in message and "\n" not in message
    assert not PYDANTIC.search(message)
    assert "must be" in message or "no duration" in message
    if key.type == "choice":
        assert all(choice in message for choice in key.values.split(", "))


@pytest.mark.parametrize(
    "key", [key for key in KEYS if re.search(r"at least|above|below|at most", key.values)], ids=str
)
def test_a_number_out_of_its_range(key: Key, tmp_path: Path) -> None:
    if key.type == "mapping":
        return
    bounds = dict(re.findall(r"(at least|above|below|at most) ([\d.e+]+)", key.values))
    beyond = {
        "at least": lambda bound: bound - 1,
        "above": lambda bound: bound,
        "below": lambda bound: bound,
        "at most": lambda bound: bound + 1,
    }
    for word, bound in bounds.items():
        value = beyond[word](int(bound) if bound.isdecimal() else float(bound))
        message = f"{key.dotted} in {tmp_path}/mine.yaml:2 must be .*{word} {re.escape(bound)}.*; found '{value}'"
        with pytest.raises(UserError, match=message):
            load_config(file_of(key, value, tmp_path))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optim.lr=fast", "optim.lr on the command line must be a number above 0; found 'fast'"),
        ("train.epochs=2.5", "train.epochs on the command line must be a whole number, at least 1; found '2.5'"),
        (
            "train.max_steps=x",
            "train.max_steps on the command line must be a whole number, at least 1, or null; found 'x'",
        ),
        ("train.precision=int8", "must be one of fp32, tf32, bf16, fp16; found 'int8'"),
        (
            "eval.metrics=BLEU,WER",
            "must be a list of BLEU, METEOR, ROUGE-L, CIDEr, SPICE, CLIPScore, RefCLIPScore; found 'BLEU,WER'",
        ),
        ("data.also={a: b}", "data.also.a on the command line must be a number above 0; found 'b'"),
        ("train.unfreeze={layer4: two}", "train.unfreeze.layer4 on the command line: 'two' is no duration"),
        ("name=", "name on the command line must be text; found nothing"),
        ("data.shards=null", "data.shards on the command line must be text; found 'null'"),
        ("optim.lr.x=3", "optim.lr on the command line must be a number above 0; found a map of keys"),
        (
            "checkpoint=a.pt",
            "must be a section with keys of its own (every, keep, grace), as in checkpoint.every: ...;",
        ),
    ],
)
def test_the_words_of_a_mistake(override: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(None, [override])
    assert told in str(raised.value)


def test_keys_that_do_not_go_together_are_named_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  early_stopping: {metric: CIDEr, patience: 2}\n")
    with pytest.raises(UserError) as raised:
        load_config(path, ["eval.metrics=BLEU"])
    assert str(raised.value).startswith(f"{path}:2 and the command line: train.early_stopping.metric is CIDEr, so")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim:\n  lr: fast\ntrain:\n  batch_size: 3\n")
    with pytest.raises(UserError) as raised:
        load_config(path, ["seed=x"])
    message = str(raised.value)
    assert f"optim.lr in {path}:2 must be" in message and "seed on the command line must be" in message
    assert f"`train.batch_size` in {path}:4 is `train.global_batch` here" in message
