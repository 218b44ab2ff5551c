"""Files of a configuration: what is no YAML, keys that stand twice, inheritance, names, the home folder."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import imgcap
from imgcap.config.load import as_yaml, load_config
from imgcap.config.run import Config
from imgcap.config.shipped import shipped_configs, shipped_names
from imgcap.errors import UserError


def mistake(path: Path, content: str | bytes | None = None, overrides: list[str] | None = None) -> str:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as raised:
        load_config(path, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def write(folder: Path, **files: str) -> None:
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- a\n", "FILE holds a list at its top; write a map"),
        ("hello\n", "FILE holds the text 'hello' at its top"),
        ("train: {epochs: 1\n", "FILE:2 is no YAML (expected ',' or '}'"),
        ("optim:\n  lr: 1\n wd: 2\n", "FILE:3 is no YAML"),
        ("optim:\n\tlr: 1\n", "FILE:2 begins with a tab; indent by spaces"),
        ("name: a\n---\nname: b\n", "FILE:2 is no YAML"),
        ("seed: 1\nname: \0\n", "FILE:2 holds a character that YAML doesn't allow (U+0000)"),
        (b"\x89PNG\r\n\x1a\n\0\0", "FILE:1 holds bytes that are no text in UTF-8 (b'\\x89PNG'); name a YAML file"),
        ("# \n# gr\xfcn\nseed: 1\n".encode("latin-1"), "FILE:2 holds bytes that are no text in UTF-8"),
        (b"\xff\xfe\x00", "FILE:1 holds bytes that are no text"),
        ("name: !!python/object:os.system {}\n", "FILE:1: the tag"),
        ("[a, b]: 3\n", "FILE:1: a list or a map is no name of a key"),
        ("train: &a {unfreeze: *a}\n", "FILE holds itself, or is nested too deep"),
    ],
)
def test_what_is_no_configuration_is_one_line_with_its_place(content: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert mistake(path, content).startswith(told.replace("FILE", str(path)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "FILE gives seed twice, in line 1 and line 3; keep one of them"),
        ("optim:\n  lr: 1\n\n  lr: 2\n", "FILE gives optim.lr twice, in line 2 and line 4; keep one of them"),
        ("data: {also: {a: 1, a: 2}}\n", "FILE gives data.also.a twice, in line 1; keep one of them"),
        (
            "optim: {lr: 1}\nseed: 2\noptim: {warmup: 3}\n",
            "FILE gives optim twice, in line 1 and line 3; keep one of them",
        ),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert mistake(path, content) == told.replace("FILE", str(path))


def test_a_key_twice_in_a_value_of_the_command_line() -> None:
    with pytest.raises(UserError, match=r"the command line gives lr twice; keep one of them"):
        load_config(None, ["optim={lr: 1, lr: 2}"])


@pytest.mark.parametrize(
    "content", ["", "# nothing yet\n", "---\n", "train:\n", "optim:\n  # lr: 1\nmodel:\n  encoder:\n"]
)
def test_what_says_nothing_changes_nothing(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    assert load_config(path) == Config(name="mine")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_editors_are_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: gr\u00fcn\r\ndata: {shards: \U0001f436}\r\n", encoding=encoding)
    assert (load_config(path).name, load_config(path).data.shards) == ("gr\u00fcn", "\U0001f436")


def test_a_value_written_as_json_is_the_same_text() -> None:
    assert load_config(None, ['data={"shards": "\\ud83d\\udc36 \\u00fc"}']).data.shards == "\U0001f436 \u00fc"


def test_anchors_and_merges_of_yaml_are_read(tmp_path: Path) -> None:
    write(tmp_path, mine="log: &often {every: 5}\neval: {<<: *often, beam: 3}\ncheckpoint: *often\n")
    config = load_config(tmp_path / "mine.yaml")
    assert (config.log.every, config.eval.every, config.eval.beam, config.checkpoint.every) == ("5", "5", 3, "5")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("007", "007"),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("2024-05-01", "2024-05-01"),
        ("on", "on"),
        ("'~'", "~"),
    ],
)
def test_names_in_a_file_are_what_was_written(text: str, value: str, tmp_path: Path) -> None:
    write(tmp_path, mine=f"name: {text}\n")
    config = load_config(tmp_path / "mine.yaml")
    assert config.name == value
    write(tmp_path, again=as_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_a_run_is_called_as_its_file(tmp_path: Path) -> None:
    write(tmp_path, dogs="seed: 1\n", named="name: cats\n")
    assert load_config(tmp_path / "dogs.yaml").run_path == Path("runs/dogs")
    assert load_config(tmp_path / "named.yaml").run_path == Path("runs/cats")
    assert load_config(tmp_path / "dogs.yaml", ["name=birds"]).run_path == Path("runs/birds")
    assert load_config(None).name == "demo"


def test_a_file_inherits_maps_and_replaces_lists_and_values(tmp_path: Path) -> None:
    write(
        tmp_path,
        grand="seed: 1\nname: grand\noptim: {lr: 1e-3, warmup: 5}\neval: {metrics: [BLEU, CIDEr]}\n"
        "train: {unfreeze: {layer4: 1, layer3: 2}}\ndata: {also: {a: 1}}\n",
        parent="base: grand.yaml\nrun_dir: runs/here\noptim: {lr: 2e-3}\n",
        mine="base: parent.yaml\neval: {metrics: [CIDEr]}\ntrain: {unfreeze: {layer3: 9}}\ndata: {also: {}}\n",
    )
    config = load_config(tmp_path / "mine.yaml", ["optim.gamma=0.1"])
    assert (config.seed, config.optim.lr, config.optim.warmup, config.optim.gamma) == (1, 2e-3, "5", 0.1)
    assert (config.eval.metrics, config.train.unfreeze, config.data.also) == (
        ("CIDEr",),
        {"layer4": "1", "layer3": "9"},
        {},
    )
    assert config.run_path == Path("runs/mine"), "name and run_dir are a run's own"


def test_a_base_is_named_relative_to_its_file_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "demo").mkdir()  # a folder of that name doesn't hide the configuration
    write(tmp_path, mine="base: deep/other.yaml\n", named="base: demo\n", home="base: ~/mine.yaml\n")
    write(tmp_path / "deep", other="base: ../third.yaml\n")
    write(tmp_path, third="seed: 7\n")
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(tmp_path / "mine.yaml").seed == load_config(tmp_path / "home.yaml").seed == 7
    demo = load_config(shipped_configs() / "demo.yaml")
    assert load_config(tmp_path / "named.yaml") == demo.model_copy(update={"name": "named"})


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a="base: b.yaml\n", b="base: c.yaml\n", c="base: a.yaml\n", own="base: own.yaml\n")
    a, b, c, own = (tmp_path / f"{name}.yaml" for name in ("a", "b", "c", "own"))
    assert mistake(a) == f"{a} inherits from itself: {a} -> {b} -> {c} -> {a}; cut base: in one"
    assert mistake(own).startswith(f"{own} inherits from itself: {own} -> {own};")


def test_a_base_that_is_wrong_is_named_with_who_names_it(tmp_path: Path) -> None:
    write(
        tmp_path, mine="base: flickr8.yaml\n", list="seed: 1\nbase: [a, b]\n", bad="base: third.yaml\n", third="lr: 1\n"
    )
    told = mistake(tmp_path / "mine.yaml")
    assert told.startswith(
        f"no configuration file {tmp_path}/flickr8.yaml, the base of {tmp_path}/mine.yaml; the nearest"
    )
    assert mistake(tmp_path / "list.yaml") == f"base in {tmp_path}/list.yaml:2 must name one file; found ['a', 'b']"
    assert mistake(tmp_path / "bad.yaml").startswith(f"`lr` in {tmp_path}/third.yaml:1 is `optim.lr` here")


def test_a_configuration_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    told = mistake(Path("flickr8"))
    assert told == (
        "no configuration file flickr8; the nearest that comes with imgcap is flickr8k, of "
        + ", ".join(shipped_names())
    )
    assert "by name there are coco, coco_clip_vit" in mistake(tmp_path / "zzz.yaml")
    assert mistake(tmp_path) == f"{tmp_path} is a folder; name the YAML file in it"
    assert load_config(Path("flickr8k")) == load_config(shipped_configs() / "flickr8k.yaml")


@pytest.mark.parametrize(
    "key", ["run_dir", "init_from", "data.shards", "data.cache", "model.encoder.weights", "data.stream"]
)
def test_the_home_folder_goes_for_every_path(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    stream = ["data.mode=stream"] if key == "data.stream" else []
    *sections, leaf = key.split(".")
    tree: Any = {leaf: "~/a/b"}
    for section in reversed(sections):
        tree = {section: tree}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    for config in (load_config(None, [f"{key}=~/a/b", *stream]), load_config(tmp_path / "mine.yaml", stream)):
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        assert str(value) == "/home/ann/a/b"


def test_the_home_folder_goes_for_sets_and_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert load_config(None, ["data.also={~/more: 2}"]).data.also == {"/home/ann/more": 2.0}
    with pytest.raises(UserError, match=r"^/home/ann/runs/x is no run and no artefact"):
        imgcap.load("~/runs/x", device="cpu")
