"""What training says to people: what begins, how evaluations went, what came out of it and what to do next."""

import re
import shlex
import subprocess

import pytest
import torch

from imgcap.evaluation.results import Evaluation
from imgcap.models.precision import is_emulated
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.lines import EMULATED, evaluation_line

BF16 = "train.precision=bf16"


def rows(told):
    """The values of a block by their names."""
    found = (re.match(r"([a-z]+(?: [a-z]+)?) {2,}(.+)", line) for line in told.splitlines())
    return {match[1]: match[2] for match in found if match}


@pytest.mark.slow
def test_a_run_says_what_it_begins_and_what_came_out(launch, tmp_path):
    run = tmp_path / "run"
    settings = ["train.max_steps=12", "eval.every=6", "eval.metrics=[BLEU,CIDEr]", "vocab.size=12", "log.every=4"]
    ended = launch(run, *settings, "data.max_tokens=6", ranks=2)
    assert ended.returncode == 0, ended.stderr
    warned, *lines = ended.stderr.splitlines()
    said = rows(ended.stderr)
    assert warned.startswith("warning: vocab.min_count=1, vocab.size=12 make ")
    start = lines[: next(place for place, line in enumerate(lines) if line.startswith("step "))]
    assert len(start) <= 12 and len({re.search(r"\b {2,}", line).end() for line in start}) == 1, start
    assert said["device"].startswith("2 ranks × ") and said["precision"] == "fp32"
    assert said["images"].startswith("train ") and "test " in said["images"]
    assert re.fullmatch(r"[\d,]+ in train; data.max_tokens=6 cuts [\d,]+ of [\d,]+ captions \(.+%\)", said["captions"])
    assert re.fullmatch(r"12 entries; \d\d\.\d\d% of the words in train are <unk>", said["vocabulary"])
    assert re.fullmatch(r"resnet18 and attention_lstm, [\d,]+ of 1[\d,]+ parameters train", said["model"])
    assert said["batch"].startswith("8 images (2 ranks × 4), ") and said["run folder"] == str(run)
    assert said["length"].startswith("12 steps (") and said["length"].endswith("evaluated on val every 6 steps")
    assert start[-1].split() == ["begins", "new"]
    evaluated = [line for line in lines if line.startswith("epoch ")]
    assert [re.search(r"step (\d+)", line)[1] for line in evaluated] == ["6", "12"]
    score = r"-?\d\.\d{3}"
    assert all(re.search(f"CIDEr {score}, BLEU-4 {score}, val loss {score}; best so far", line) for line in evaluated)
    assert evaluated[0].endswith("(this one)")
    best = (run / "checkpoints/best").read_text().strip()
    assert said["best"].startswith(f"step {int(best[5:])}, CIDEr ") and said["best"].endswith(f"/checkpoints/{best}")
    assert "curves.png" in said["pictures"] and re.search(r"^trained 12 steps in \d+ s$", ended.stderr, re.MULTILINE)
    assert ended.stderr.count("device  ") == 1, "rank 0 alone speaks"
    again = launch(run, *[*settings, "train.max_steps=18"], "data.max_tokens=6", "optim.warmup=10", BF16)
    emulated = is_emulated(torch.device("cpu"), "bf16")
    assert rows(again.stderr)["precision"] == ("bf16" + EMULATED if emulated else "bf16")
    assert rows(again.stderr)["length"].endswith("warning: the rate rises for 10 of them, lower optim.warmup")
    assert rows(again.stderr)["begins"] == f"goes on from step 12 ({run}/checkpoints/step-00000012)"
    finished = launch(run, *[*settings, "train.max_steps=18"], "data.max_tokens=6", "optim.warmup=10", BF16)
    assert "is finished: step 18 of 18" in finished.stderr and "trained" not in finished.stderr


@pytest.mark.slow
def test_the_two_commands_that_come_next_work(launch, tmp_path, shards):
    ended = launch(tmp_path / "a run", "train.max_steps=2", "eval.metrics=[BLEU]")
    said = rows(ended.stderr)
    photo = next(iter(shards.with_name("demo-raw").glob("*.jpg")))
    for command in (said["evaluate"], said["caption"].replace("PHOTO.jpg", str(photo))):
        done = subprocess.run(shlex.split(command), capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, done.stderr


BOTH = "CIDEr 0.412, BLEU-4 0.187, val loss 2.905"


def evaluation(scores):
    return Evaluation("val", scores, 2.9051, "", [], [], {})


@pytest.mark.parametrize(
    ("scores", "metric", "best", "best_step", "line"),
    [
        ({"BLEU-4": 0.1874, "CIDEr": 0.4119}, "CIDEr", 0.4119, 450, f"{BOTH}; best so far CIDEr 0.412 (this one)"),
        ({"CIDEr": 0.4}, "CIDEr", 0.5, 300, "CIDEr 0.400, val loss 2.905; best so far CIDEr 0.500 (step 300)"),
        ({"METEOR": 0.2}, "CIDEr", None, None, "METEOR 0.200, val loss 2.905"),
        ({}, "loss", 2.9051, 450, "val loss 2.905; best so far val loss 2.905 (this one)"),
    ],
)  # fmt: skip
def test_a_line_an_evaluation(scores, metric, best, best_step, line):
    assert evaluation_line(evaluation(scores), 450, 2, metric, best, best_step) == f"epoch 3, step 450: {line}"


def test_the_share_of_words_that_are_no_entries():
    counts = {"a": 6, "dog": 3, "aardvark": 1}
    assert Vocabulary.build(counts, size=6).unknown_share(counts) == 0.1
    assert Vocabulary.build(counts).unknown_share(counts) == 0 == Vocabulary.build(counts).unknown_share({})


def test_torch_s_warning_of_many_workers_is_not_repeated(launch, tmp_path):
    ended = launch(tmp_path / "run", "data.workers=9", "train.max_steps=1", "eval.every=0", through=("-W", "always"))
    assert ended.returncode == 0 and "This DataLoader will create" not in ended.stderr
