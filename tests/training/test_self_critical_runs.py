"""Self-critical runs as users start them: the same at any scale, across stops, on every engine, and signed."""

import importlib.util
import json
import re

import pytest
import torch
from launched import TRANSFORMER, done, whole_and_killed
from safetensors.torch import load_file

pytestmark = [pytest.mark.dist, pytest.mark.slow]

STEPS = 50
SETTINGS = ["train.objective=self_critical", f"train.max_steps={STEPS}", "optim.lr=2e-5", "optim.schedule=constant"]
SETTINGS += ["train.self_critical.reward.CIDEr=1", "train.self_critical.reward.BLEU-4=0.5", "data.augment=off"]
DECODERS = {"lstm": [], "transformer": TRANSFORMER}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(kept, launch):
    """A run that cross-entropy has taught to say something, made once for a decoder."""

    def train(decoder):
        run = kept / decoder
        if not run.exists():
            fast = ["train.max_steps=80", "optim.lr=1e-2", "optim.schedule=constant", "data.augment=off"]
            done(launch(run, *DECODERS[decoder], *fast))
        return run

    return train


@pytest.fixture
def one_rank(kept, launch, trained):
    """The lines of a self-critical run of one rank, made once for a decoder."""

    def run(decoder, metrics):
        folder = kept / f"{decoder}-one"
        if not folder.exists():
            done(launch(folder, *DECODERS[decoder], *SETTINGS, f"init_from={trained(decoder)}"))
        return metrics(folder)

    return run


def alike(found, expected):
    """Whether two runs have drawn the same captions and learnt the same of them."""
    assert sorted(found) == sorted(expected) == list(range(1, STEPS + 1))
    for step, line in expected.items():
        for name in ("batch_hash", "images"):
            assert found[step][f"train/{name}"] == line[f"train/{name}"]
        for name in ("reward", "reward_spread", "baseline", "advantage", "length", "distinct_2", "repeats"):
            assert found[step][f"sampled/{name}"] == pytest.approx(line[f"sampled/{name}"], rel=1e-9, abs=1e-9), step
        assert found[step]["train/loss"] == pytest.approx(line["train/loss"], rel=1e-4)
        assert found[step]["train/objective"] == pytest.approx(line["train/objective"], abs=1e-4)
    assert max(line["sampled/advantage"] for line in expected.values()) > 0.05, "nothing was to be learnt"


@pytest.mark.parametrize(
    "decoder, ranks, micro_batch",
    [
        ("lstm", 2, "2"),
        ("transformer", 2, "null"),
        pytest.param("lstm", 4, "null", marks=pytest.mark.exhaustive),
        pytest.param("transformer", 4, "1", marks=pytest.mark.exhaustive),
        pytest.param("lstm", 1, "4", marks=pytest.mark.exhaustive),
    ],
)
def test_it_is_the_same_run_at_any_scale(tmp_path, launch, metrics, trained, one_rank, decoder, ranks, micro_batch):
    expected = one_rank(decoder, metrics)
    settings = [*DECODERS[decoder], *SETTINGS, f"init_from={trained(decoder)}", f"train.micro_batch={micro_batch}"]
    done(launch(tmp_path / "run", *settings, ranks=ranks))
    alike(metrics(tmp_path / "run"), expected)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
@pytest.mark.parametrize("stage", [3, *(pytest.param(stage, marks=pytest.mark.exhaustive) for stage in (0, 1, 2))])
def test_deepspeed_draws_and_learns_the_same(tmp_path, launch, metrics, trained, one_rank, stage):
    expected = one_rank("lstm", metrics)
    engine = ["engine.name=deepspeed", f"engine.zero_stage={stage}", "train.self_critical.kl=0"]  # which only watches
    done(launch(tmp_path / "run", *SETTINGS, f"init_from={trained('lstm')}", *engine, ranks=2))
    lines = metrics(tmp_path / "run")
    alike(lines, expected)
    assert lines[1]["sampled/kl"] == 0 != lines[STEPS]["sampled/kl"]


def test_a_run_that_turns_to_it_and_stops_goes_on_to_the_very_same_weights(tmp_path, launch, metrics):
    settings = ["train.objective=self_critical", "train.objective_from=4", "optim.schedule=constant"]
    settings += ["train.self_critical={samples: 3, baseline: greedy, cross_entropy: 0.2, temperature: 0.8, kl: 0.1}"]
    settings += ["train.teacher_forcing={start: 0.8}", "model.encoder.train=last_block"]
    whole = done(launch(tmp_path / "whole", *settings, "train.max_steps=11"))
    for steps in (3, 5, 7, 11):
        part = done(launch(tmp_path / "parts", *settings, f"train.max_steps={steps}"))
        assert ("warning: it ends before any is self-critical" in part.stderr) == (steps == 3)
    assert "; self-critical after 4\n" in whole.stderr
    assert "step 5: self-critical from here on, 3 captions an image rewarded by 1 CIDEr" in whole.stderr
    told = [re.search(r"^step (\d+)/11  (loss|reward) ", line) for line in whole.stderr.splitlines()]
    assert {int(found[1]): found[2] for found in told if found} == {
        step: "loss" if step < 5 else "reward" for step in range(1, 12)
    }
    lines = [metrics(tmp_path / name) for name in ("whole", "parts")]
    assert "sampled/reward" not in lines[0][4] and "sampled/reward" in lines[0][5]
    assert lines[0][5]["sampled/kl"] == 0 != lines[0][11]["sampled/kl"]
    for step in range(1, 12):
        different = [name for name, value in lines[0][step].items() if lines[1][step][name] != value]
        assert all(name.startswith("perf/") for name in different), (step, different)
    saved = [load_file(tmp_path / n / "checkpoints/step-00000011/model.safetensors") for n in ("whole", "parts")]
    assert all(torch.equal(weight, saved[1][name]) for name, weight in saved[0].items())


@pytest.mark.exhaustive
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_killed_run_resumes_to_the_very_same_weights(tmp_path, launch, metrics, trained, decoder):
    settings = [*DECODERS[decoder], *SETTINGS, f"init_from={trained(decoder)}"]
    settings += ["train.max_steps=40", "checkpoint.every=6"]
    settings += ["model.encoder.train=all", "data.workers=2", "data.augment=light"]
    whole, killed = (metrics(run) for run in whole_and_killed(tmp_path, launch, settings))
    for step in range(1, 41):
        for name in ("train/loss", "train/objective", "train/batch_hash", "sampled/reward", "sampled/advantage"):
            assert killed[step][name] == whole[step][name]
    saved = [load_file(tmp_path / n / "checkpoints/step-00000040/model.safetensors") for n in ("whole", "killed")]
    assert all(torch.equal(weight, saved[1][name]) for name, weight in saved[0].items())


def test_scores_and_artefact_say_what_the_model_was_trained_for(tmp_path, shards, launch, trained, command):
    run, out = tmp_path / "run", tmp_path / "artefact"
    settings = ["train.max_steps=2", "eval.metrics=[BLEU]"]
    done(launch(run, *SETTINGS, f"init_from={trained('lstm')}", *settings))
    signature = json.loads((run / "results/val-scores.json").read_text())["signature"]
    (said,) = [part for part in signature.split("|") if part.startswith("objective:")]
    assert said.startswith("objective:self_critical,samples=5,baseline=others,CIDEr=1,BLEU-4=0.5,eos,references=")
    assert command("imgcap", "export", run, "--out", out).returncode == 0
    assert json.loads((out / "config.json").read_text())["objective"] == said.removeprefix("objective:")
    for model in (run, out):
        scored = command("imgcap", "evaluate", model, "--split", "val", "eval.limit=4", f"data.shards={shards}")
        assert scored.returncode == 0, scored.stderr
        assert f"|{said}|" in json.loads(scored.stdout.splitlines()[-1])["signature"]
    assert "|unk:never|" in signature, "it never drew the word"
    for steps in (1, 2):  # from the artefact by cross-entropy, and on with what that began
        done(launch(tmp_path / "on", f"init_from={out}", f"train.max_steps={steps}", "eval.metrics=[BLEU]"))
        on_signature = json.loads((tmp_path / "on/results/val-scores.json").read_text())["signature"]
        assert f"|{said},then=cross_entropy|" in on_signature and "|unk:never|" in on_signature
    by_cross_entropy = json.loads((trained("lstm") / "results/val-scores.json").read_text())["signature"]
    assert "unk:never" not in by_cross_entropy


def test_early_stopping_waits_for_it_and_begins_anew(tmp_path, launch, metrics):
    """A loss that never falls by 100 nats ends a run after its second evaluation, but where it turns to captions."""
    stops = ["train.early_stopping={metric: loss, patience: 1, min_delta: 100}", "eval.every=1", "eval.limit=2"]
    stops += ["train.max_steps=8", "log.every=6", "eval.metrics=[BLEU]"]
    drawn = ["train.objective=self_critical", "train.objective_from=5"]
    turned = done(launch(tmp_path / "turned", *stops, *drawn))
    assert "stopped at step 6 of 8; it stopped early" in turned.stderr
    line = metrics(tmp_path / "turned")[6]
    assert abs(line["train/objective"]) < 0.5 < line["sampled/entropy"], "means over drawn captions alone"
    plain = done(launch(tmp_path / "plain", *stops))
    assert "stopped at step 2 of 8; it stopped early" in plain.stderr
    again = launch(tmp_path / "plain", *stops, "optim.lr=1e-5")
    assert "a higher train.early_stopping.patience goes on with them" in again.stderr
    asked = ["train.objective=self_critical", "--change", "train.objective"]
    on = done(launch(tmp_path / "plain", *stops, *asked))
    assert "step 3: self-critical from here on" in on.stderr and "stopped at step 3 of 8; it stopped early" in on.stderr


def test_a_beginning_behind_the_end_is_refused(tmp_path, launch):
    for more in ([], ["--dry-run"]):
        ended = launch(tmp_path / "run", *SETTINGS, "train.objective_from=30ep", "train.epochs=30", *more)
        assert ended.returncode == 2 and "behind the run's end, of train.epochs=30" in ended.stderr, ended.stderr


def test_a_vocabulary_by_characters_is_refused(tmp_path, launch):
    ended = launch(tmp_path / "run", *SETTINGS, "vocab.oov=characters", "train.max_steps=1")
    assert ended.returncode == 2 and "set vocab.oov=unk" in ended.stderr.splitlines()[-1], ended.stderr
