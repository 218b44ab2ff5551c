"""Sweeps: shared by processes, gone on with after a kill, with a table and a plot at the end."""

import csv
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from PIL import Image

from imgcap.errors import UserError
from imgcap.training.sweep.spec import load_sweep

pytest.importorskip("optuna")
CHECKOUT = Path(__file__).parents[3]
RATES = [1e-3, 3e-3, 3e-4, 1e-1, 1e-5, 1e-6]  # the best first, so that the last are pruned


@pytest.fixture
def sweep(warm, tmp_path):
    """Write a sweep's file and run it in `processes` at once."""

    def start(processes=1, mischief="", **settings):
        described = {"name": "tiny", "base": "configs/debug.yaml", "startup": 2, **settings}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(described))
        arguments = ["tests/training/sweep/share.py", tmp_path / "sweep.yaml", tmp_path / "out"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MISCHIEF": mischief}
        warm[False].run(
            ["--version"], CHECKOUT, environment
        ) if processes > 1 else None  # it must be up before it is shared
        with ThreadPoolExecutor(processes) as pool:
            running = [pool.submit(warm[False].run, arguments, CHECKOUT, environment) for _ in range(processes)]
        return [process.result() for process in running] if processes > 1 else running[0].result()

    return start


@pytest.fixture
def table(tmp_path):
    def read():
        with (tmp_path / "out" / "table.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


def starts(folder):
    """How often each trial was started, and by which processes."""
    return {path.stem: path.read_text().split() for path in sorted(folder.glob("*.starts"))}


def test_two_processes_share_the_trials_and_those_that_lag_are_pruned(sweep, table, tmp_path):
    both = sweep(processes=2, parameters={"optim.lr": {"choices": RATES}})
    assert [ended.returncode for ended in both] == [0, 0], [ended.stderr for ended in both]
    begun = starts(tmp_path / "out")
    assert list(begun) == [f"trial-{number:04d}" for number in range(len(RATES))]
    assert all(len(processes) == 1 for processes in begun.values()), "no trial is trained twice"
    assert len({processes[0] for processes in begun.values()}) == 2, "both had a share"
    rows = table()
    assert sorted(float(row["optim.lr"]) for row in rows) == sorted(RATES), "every choice once"
    complete = [row for row in rows if row["state"] == "complete"]
    assert float(rows[0]["optim.lr"]) == 1e-3 and float(rows[0]["CIDEr"]) == pytest.approx(1 - 0.5**5, abs=1e-4)
    assert [float(row["CIDEr"]) for row in complete] == sorted((float(row["CIDEr"]) for row in complete), reverse=True)
    pruned = {float(row["optim.lr"]): int(row["evaluations"]) for row in rows if row["state"] == "pruned"}
    assert pruned and len(pruned) + len(complete) == len(RATES)
    assert set(pruned) <= set(RATES[2:]) and min(pruned.values()) < 5, "they were ended before their time"
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert markdown.count("| pruned |") == len(pruned) and "6 of 6 trials" in markdown
    with Image.open(tmp_path / "out" / "parameters.png") as plot:
        assert plot.width > 400 and len(plot.convert("RGB").getcolors(1 << 20)) > 20


@pytest.mark.parametrize(("mischief", "code"), [("kill:1", -9), ("preempt:1", 75)])
def test_an_interrupted_sweep_goes_on_with_the_same_trial(sweep, table, tmp_path, mischief, code):
    rates, batches = {"low": "1e-5", "high": 1e-2, "log": True}, {"low": 4, "high": 16, "step": 4}
    settings = {"parameters": {"optim.lr": rates, "train.global_batch": batches}, "trials": 2, "pruner": "none"}
    ended = sweep(mischief=mischief, **settings)
    assert ended.returncode == code, ended.stderr
    again = sweep(**settings)
    assert again.returncode == 0, again.stderr
    assert [len(processes) for processes in starts(tmp_path / "out").values()] == [1, 2]
    rows = table()
    assert [row["state"] for row in rows] == ["complete"] * 2 and {row["evaluations"] for row in rows} == {"5"}
    assert all(1e-5 <= float(row["optim.lr"]) <= 1e-2 for row in rows)
    assert {int(row["train.global_batch"]) for row in rows} <= {4, 8, 12, 16}


def test_a_trial_that_ended_just_before_its_report_is_in_the_table(sweep, table, tmp_path):
    settings = {"parameters": {"optim.lr": {"choices": [1e-3]}}}
    assert sweep(**settings).returncode == 0
    for path in tmp_path.glob("out/table.*"):
        path.unlink()  # as a process leaves it that is killed between the two
    again = sweep(**settings)
    assert again.returncode == 0, again.stderr
    assert [row["state"] for row in table()] == ["complete"] and (tmp_path / "out" / "table.md").exists()
    assert [len(processes) for processes in starts(tmp_path / "out").values()] == [1], "it is not trained again"


def test_a_trial_that_fails_is_a_line_of_the_table_and_a_mistake_ends_the_sweep(sweep, table):
    settings = {"parameters": {"optim.lr": {"low": 1e-4, "high": 1e-2}}, "trials": 2}
    ended = sweep(mischief="diverge:1", **settings)
    assert ended.returncode == 0, ended.stderr
    *_, last = table()
    assert (last["state"], last["note"], last["evaluations"]) == ("failed", "the gradient was not finite", "2")
    grown = sweep(mischief="mistake:2", **settings | {"trials": 3})
    assert grown.returncode == 2 and "trial-0002 did not begin: there is no shard folder shards/demo;" in grown.stderr
    other = sweep(**settings | {"objective": "loss"})
    assert other.returncode == 2 and "begun with other objective; choose another --out" in other.stderr


def test_a_trial_is_a_run_of_the_launch_file(warm, shards, tmp_path):
    """The tool itself, with a real training."""
    settings = {
        "data": {"shards": str(shards), "image_size": 32, "workers": 0},
        "model.encoder": {"name": "resnet18", "weights": None, "train": "none"},
        "model.decoder": {"embed_dim": 16, "hidden_dim": 24, "attention_dim": 16},
        "train": {"max_steps": 2, "global_batch": 8},
        "eval": {"every": "1", "limit": 4, "beam": 1, "metrics": []},
        "log": {"every": "1", "tensorboard": False},
    }
    described = {"name": "real", "base": "configs/debug.yaml", "overrides": settings, "objective": "loss"}
    described["parameters"] = {"optim.lr": {"choices": ["1e-3"]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(described))
    arguments = ["tools/sweep.py", tmp_path / "sweep.yaml", "--out", tmp_path / "out"]
    ended = warm[False].run(arguments, CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr
    run = tmp_path / "out" / "trial-0000"
    losses = [json.loads(line)["val/loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and f"| {min(losses):.4f} | 0.001 | complete | 2 |" in ended.stdout
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["lr"] == 1e-3
    assert (run / "checkpoints" / "best").exists()


@pytest.mark.parametrize("path", sorted((CHECKOUT / "tools" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_along_are_sound(path, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    sweep = load_sweep(path)
    assert sweep.name == path.stem and sweep.total >= 4
    assert f"tools/sweep.py tools/sweeps/{path.name}" in path.read_text(), "its header gives the command"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"parameters": {}}, "parameters holds no key"),
        ({"parameters": {"optim.lr": {"low": 1e-4, "high": 1e-2}}}, "trials is missing"),
        (
            {"parameters": {"optim.lr": {"low": 2, "high": 1}}, "trials": 2},
            r"optim\.lr in .*sweep\.yaml:\d+: write choices: .* low below high",
        ),
        ({"parameters": {"optim.lr": {"low": 0, "high": 1, "log": True}}, "trials": 2}, "low must be above 0"),
        ({"parameters": {"optim.lr": {"choices": [1], "log": True}}}, "without low, high, log"),
        ({"parameters": {"optim.rate": {"choices": [1]}}}, r"unknown key optim\.rate"),
        ({"parameters": {"optim.lr": {"choices": ["fast"]}}}, r"optim\.lr on the command line"),
        ({"overrides": {"train.epoch": 1}}, r"nearest valid one is train\.epochs"),
        ({"overrides": {"eval.metrics": ["BLEU"]}}, "eval.metrics must hold CIDEr"),
        ({"prunner": "median"}, r"unknown key prunner in .*sweep\.yaml:\d+; the nearest valid one is pruner"),
        ({"trials": "many"}, r"trials in .*sweep\.yaml:\d+ must be a whole number, at least 1, or null; found 'many'"),
        (
            {"parameters": {"optim.lr": {"low": "a", "high": 2}}},
            r"parameters\.optim\.lr\.low in .* must be a whole number or a number, or null; found 'a'",
        ),
        (
            {"parameters": {"optim.lr": {"choices": [[1]]}}},
            r"parameters\.optim\.lr\.choices in .* must be a list, or null",
        ),
        ({"base": "nowhere.yaml"}, "no configuration file nowhere.yaml"),
    ],
)
def test_a_mistake_in_a_sweep_is_named(tmp_path, monkeypatch, settings, complaint):
    monkeypatch.chdir(CHECKOUT)
    described = {"name": "x", "base": "configs/debug.yaml", "parameters": {"optim.lr": {"choices": [1e-3]}}} | settings
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(UserError, match=complaint) as raised:
        load_sweep(tmp_path / "sweep.yaml")
    assert "\n" not in str(raised.value)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    from imgcap.training.sweep.study import Sweep

    monkeypatch.setitem(sys.modules, "optuna", None)
    config = load_sweep(CHECKOUT / "tools" / "sweeps" / "learning_rate.yaml")
    with pytest.raises(UserError, match=r"pip install 'imgcap\[sweep\]'"):
        Sweep(config, tmp_path, [])
