"""Mistakes of the commands that score and caption: one line each, which says what there is instead."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import draw_photo
from untrained import save_run

from imgcap.commands.arguments import device_of
from imgcap.export.artefact import export_run
from imgcap.ranks.world import World, init_ranks, say_without_gpu

WORDS = ["a", "red", "dog"]
SMALL = "data={image_size: 32, workers: 0}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Folders as somebody has them: runs, one of which has no checkpoint, and artefacts, one from the future."""
    home = tmp_path_factory.mktemp("home")
    for folder in ("runs", "art", "empty"):
        (home / folder).mkdir()
    draw_photo(home / "p.jpg")
    save_run(home / "runs" / "flickr8k", WORDS, SMALL, f"data.shards={shards}", "checkpoint.every=2ep")
    export_run(home / "runs" / "flickr8k", home / "art" / "mine")
    export_run(home / "runs" / "flickr8k", home / "art" / "newer")
    save_run(home / "runs" / "begun", WORDS, SMALL, "checkpoint.every=2ep")
    for path in sorted((home / "runs" / "begun" / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    newer = home / "art" / "newer" / "config.json"
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"format": 2, "made_by": "imgcap 9.1.0"}))
    return home


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("caption", "required: RUN_OR_ARTEFACT, IMAGE|DIR|SHARDS; --help says what there is"),
        ("caption HOME/runs/flickr8k", "required: IMAGE|DIR|SHARDS; --help"),
        ("caption HOME/runs/flickr8k HOME/p.jpg --beam 3x", "argument --beam: invalid int value: '3x'"),
        ("evaluate", "required: RUN_OR_ARTEFACT; --help"),
        ("caption HOME/runs/flikr8k HOME/p.jpg", "no folder there); the nearest is HOME/runs/flickr8k"),
        ("evaluate HOME/art/mien", "no folder there); the nearest is HOME/art/mine"),
        (
            "evaluate HOME/runs",
            "no config.yaml or config.json there); name one of those in it, such as HOME/runs/begun",
        ),
        ("evaluate HOME/empty", "no config.yaml or config.json there); "),
        ("evaluate --local-rank=0 HOME/empty", "no config.yaml or config.json there); "),
        ("evaluate --local_rank=0 HOME/empty", "no config.yaml or config.json there); "),
        ("--local-rank=1 evaluate HOME/empty", "no config.yaml or config.json there); "),
        ("train --local-rank=0 data.shards=HOME/empty", "HOME/empty has no manifest.json"),
        ("caption --local-rank=0 HOME/empty HOME/p.jpg --out HOME/c.jsonl", "no config.yaml or config.json there); "),
        (
            "caption HOME/runs/begun HOME/p.jpg",
            "checkpoints yet, where one comes every checkpoint.every=2ep; wait",
        ),
        ("evaluate HOME/runs/flickr8k --beam 0", "error: --beam 0 is too low; it is at least 1"),
        ("evaluate HOME/runs/flickr8k eval.beam=0", "eval.beam on the command line must be a whole number, at least 1"),
        ("caption HOME/runs/flickr8k HOME --out HOME/c.csv --beam 0", "error: --beam 0 is too low; it is at least 1"),
        (
            "caption HOME/runs/flickr8k HOME --out HOME/c.csv --length-penalty inf",
            "error: --length-penalty inf must be a finite number, such as 1",
        ),
        (
            "caption HOME/runs/flickr8k HOME --out HOME/c.csv --min-length 500",
            "error: --min-length 500 asks for at least 500 words and the model's captions have at most ",
        ),
        (
            "caption HOME/runs/flickr8k HOME --out HOME/c.csv --min-length 4 --no-repeat-ngram 1",
            "error: --min-length 4 needs more words than the 3 that are not banned; lower it or ban fewer",
        ),
        (
            "caption HOME/runs/flickr8k HOME --out HOME/c.csv eval.min_length=500",
            "config.yaml:17: eval.min_length is more than data.max_tokens, the words of the longest caption; lower it",
        ),
        ("evaluate HOME/runs/flickr8k --out HOME/art", "argument --out: HOME/art is a folder; name a file"),
        ("evaluate HOME/runs/flickr8k --out HOME/p.jpg/x", "HOME/p.jpg/x can't be written in HOME/p.jpg; name another"),
        ("evaluate HOME/art/newer", "of format 2, this imgcap reads 1; it was made by imgcap 9.1.0: install that one"),
        ("evaluate HOME/runs/flickr8k --split tset", "no split 'tset'; it has train, val, test; name one of them"),
        ("evaluate HOME/runs/flickr8k eval.split=val", "error: eval.split is of training; use --split val"),
        ("caption HOME/runs/flickr8k SET --split tset --out HOME/c.csv", "no split 'tset'; it has train, val, test"),
        ("evaluate HOME/art/mine", "doesn't say which set it was trained on, being of an older imgcap"),
        ("evaluate HOME/runs/flickr8k --device gpu", "'gpu' is no device; give cpu, cuda, cuda:1 or mps"),
        ("evaluate HOME/runs/flickr8k device=cuda:99", "cuda:99 was asked for, and torch finds "),
        ("caption HOME/runs/flickr8k HOME/p.jpg --device cuda:99", "cuda:99 was asked for, and torch finds "),
        ("train device=cuda:99 run_dir=HOME/new", "cuda:99 was asked for, and torch finds "),
        (
            "train --device mps run_dir=HOME/new",
            "mps was asked for, and torch finds no such GPU on this machine; leave",
        ),
    ],
)
def test_a_mistake_is_one_line(home: Path, shards: Path, command: Callable[..., Any], given: str, line: str) -> None:
    if "mps" in given and torch.backends.mps.is_available():
        pytest.skip("it is no mistake here")
    places = [("HOME", str(home)), ("SET", str(shards))]
    for name, place in places:
        given, line = given.replace(name, place), line.replace(name, place)
    before = set(home.rglob("*"))
    ended = command("imgcap", *given.split())
    assert line in ended.mistake and len(ended.stderr.splitlines()) == 1 and not ended.stdout
    assert set(home.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    ("given", "option", "kind"),
    [
        ("train --overfit -1", "--overfit", "positive"),
        ("train --overfit 0", "--overfit", "positive"),
        ("train --profile -5", "--profile", "positive"),
        ("train --profile 0", "--profile", "positive"),
        ("inspect SET --limit 0", "--limit", "positive"),
        ("inspect SET --limit -1", "--limit", "positive"),
        ("inspect SET --seed -1", "--seed", "seed"),
        ("compare a b --seed -1", "--seed", "seed"),
        ("build demo --out /dev/null/out --seed -1", "--seed", "seed"),
        ("index a.tar --out /dev/null/out --seed -1", "--seed", "seed"),
        ("score --results a.json --facts --shuffle-images -1", "--shuffle-images", "seed"),
        ("sweep a.yaml --nproc-per-node 0", "--nproc-per-node", "positive"),
    ],
)
def test_a_number_out_of_range_is_told_before_anything_begins(
    command: Callable[..., Any], given: str, option: str, kind: str
) -> None:
    ended = command("imgcap", *given.split())
    line = f"argument {option}: invalid {kind} value: '{given.split()[-1]}'; --help says what there is"
    assert ended.returncode == 2 and ended.stderr == f"error: {line}\n" and not ended.stdout


def test_a_flag_wins_over_a_key() -> None:
    assert device_of("cpu", ["device=cuda:3"]) == "cpu"
    assert device_of(None, ["eval.beam=3", "device=cuda:3"]) == "cuda:3"
    assert device_of(None, ["eval.beam=3"]) is None


def test_a_machine_without_a_gpu_is_told_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    alone = init_ranks()
    for world in (alone, init_ranks("cpu"), World(1, 2, 1, torch.device("cpu"), without_gpu=True)):
        say_without_gpu(world, "training")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("no GPU was found: training on the CPU, with 1 thread a process")


def test_the_configuration_may_choose_the_device(
    command: Callable[..., Any], shards: Path, tmp_path: Path, tiny: list[str]
) -> None:
    for chosen, told in ((["device=cpu"], 0), (["--device", "cpu"], 0), ([], int(not torch.cuda.is_available()))):
        run = tmp_path / f"run-{'-'.join(chosen) or 'none'}"
        ended = command("imgcap", "train", *tiny, f"run_dir={run}", f"data.shards={shards}", *chosen)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("no GPU was found") == told
