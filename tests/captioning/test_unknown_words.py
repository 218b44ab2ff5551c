"""<unk> is in captions that are scored, as it always was, and in none for people, unless it is allowed."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from untrained import save_run

import imgcap
from imgcap.captioning.captioner import PictureCaptioner
from imgcap.checkpoint.load import load_checkpoint
from imgcap.checkpoint.save import save_checkpoint
from imgcap.models.trained import open_trained
from imgcap.types import UNK

WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run that likes to say <unk>."""
    settings = [f"data={{shards: {shards}, image_size: 32, max_tokens: 6, workers: 0}}", "eval={beam: 3, metrics: []}"]
    run = save_run(tmp_path_factory.mktemp("unknown") / "run", WORDS, *settings)
    weights = load_checkpoint(run / "checkpoints").model
    weights["decoder.output.bias"][UNK] += 8
    save_checkpoint(run / "checkpoints", 2, weights, {}, {}, keep=1, best=True)
    return run


@pytest.fixture(scope="module")
def pictures(shards: Path) -> list[Path]:
    return sorted((shards.parent / "demo-raw").glob("*.jpg"))[:5]


def said_unknown(captioner: PictureCaptioner, pictures: list[Path], **options: Any) -> bool:
    return any("<unk>" in caption.tokens for caption in captioner.caption(pictures, **options))


@pytest.mark.parametrize(
    "options", [{}, {"method": "greedy"}, {"method": "sample", "samples": 3}, {"required": ["dog"]}]
)
def test_it_is_said_to_nobody_who_did_not_ask(run: Path, pictures: list[Path], options: dict[str, Any]) -> None:
    captioner = imgcap.load(run, "cpu")
    plain = captioner.caption(pictures, **options)
    assert all("<unk>" not in caption.tokens for caption in plain)
    banned = captioner.caption(pictures, **options, banned=("<unk>",))
    assert [(caption.text, caption.score) for caption in plain] == [(caption.text, caption.score) for caption in banned]
    assert said_unknown(captioner, pictures, **options, unk=True)


def test_a_configuration_may_allow_it(run: Path, pictures: list[Path]) -> None:
    assert said_unknown(PictureCaptioner(open_trained(run, overrides=["eval.unk=true"])), pictures)
    assert not said_unknown(PictureCaptioner(open_trained(run)), pictures)


def test_scores_may_hold_it_and_say_where_they_may_not(
    run: Path, command: Callable[..., Any], tmp_path: Path, pictures: list[Path]
) -> None:
    def scored(*more: str) -> tuple[list[str], str]:
        ended = command("imgcap", "evaluate", run, "--split", "test", *more)
        assert ended.returncode == 0, ended.stderr
        rows = json.loads((run / "results" / "test-captions.json").read_text())
        return [row["caption"] for row in rows], json.loads(ended.stdout.splitlines()[-1])["signature"]

    with_holes, signature = scored()
    without, other = scored("eval.unk=false")
    assert "unk" not in signature and "|unk:never|" in other
    words = [sum(len(caption.split()) for caption in captions) for captions in (with_holes, without)]
    assert words[0] < words[1], "nothing was unknown"
    allowed, _ = scored("eval.unk=true")
    assert allowed == with_holes


def test_the_flag_allows_it_for_one_and_for_many(
    run: Path, pictures: list[Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    texts = {}
    for flags in ((), ("--allow-unk",)):
        one = json.loads(command("imgcap", "caption", run, *pictures, "--json", *flags).stdout)
        out = tmp_path / f"{len(flags)}.jsonl"
        ended = command("imgcap", "caption", run, pictures[0].parent, "--out", out, "data.workers=0", *flags)
        assert ended.returncode == 0, ended.stderr
        rows = {row["image"]: row["caption"] for row in map(json.loads, out.read_text().splitlines())}
        texts[flags] = [entry["caption"] for entry in one]
        assert [rows[picture.name] for picture in pictures] == texts[flags]
    assert texts[()] != texts[("--allow-unk",)]


def test_a_capital_and_a_full_stop_are_written_as_people_do(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that says one caption only, whatever it sees."""
    run = save_run(tmp_path / "run", ["dog", "'s", "ball", ".", "the"], "data={image_size: 32, max_tokens: 5}")
    words = json.loads((run / "vocab.json").read_text())["words"]
    chain = ["<sos>", "the", "dog", "'s", "ball", ".", "<eos>"]
    follows = torch.full((len(words), len(words)), -30.0)
    for word, after in pairwise(chain):
        follows[words.index(word), words.index(after)] = 0
    captioner = imgcap.load(run, "cpu")
    step = captioner.loaded.model.decoder.step

    def said(state: Any, token: torch.Tensor) -> Any:
        _, state, attention = step(state, token)
        return follows[token], state, attention

    monkeypatch.setattr(captioner.loaded.model.decoder, "step", said)
    assert captioner.caption(pictures[0])[0].text == "the dog's ball."
    found = captioner.caption(pictures[0], capital=True)[0]
    assert (found.text, found.tokens) == ("The dog's ball.", chain[1:-1])
