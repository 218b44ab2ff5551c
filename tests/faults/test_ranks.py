"""A rank that dies, hangs, raises, or computes what is not finite."""

import os
import re
import signal
import time

import pytest

pytestmark = [pytest.mark.dist, pytest.mark.slow]
TWELVE = ["train.global_batch=12", "train.max_steps=40", "checkpoint.every=5"]


@pytest.mark.exhaustive
def test_a_killed_rank_comes_back_and_ends_at_the_same_weights(tmp_path, launch, metrics, same, reach, rank_of):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert launch(whole, *TWELVE, ranks=3).returncode == 0
    process = launch(killed, *TWELVE, ranks=3, torchrun=("--max-restarts", "1"), wait=False)
    reach(killed, process, 12)
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    same(metrics, killed, whole)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.exhaustive), 1])
def test_a_rank_that_hangs_is_named_with_its_step(tmp_path, injected, rank):
    began = time.monotonic()
    ended = injected(tmp_path / "run", f"hang:{rank}:6", "engine.timeout=6", "train.max_steps=100", ranks=2)
    assert ended.returncode == 1 and time.monotonic() - began < 60
    other = 1 - rank
    waits = f"rank {other} has stood still .* in .*all-reduce.*it waits for rank {rank}, which is at step 5 in"
    hangs = f"rank {rank} has stood still .* at step 5 in"
    assert re.search(waits, ended.stderr) or re.search(hangs, ended.stderr), ended.stderr
    assert "time.sleep" not in ended.stderr or "in faulty" in ended.stderr


@pytest.mark.exhaustive
def test_a_stopped_process_is_named_by_the_others(tmp_path, launch, reach, rank_of):
    process = launch(tmp_path / "run", "engine.timeout=6", "train.max_steps=100000", ranks=2, wait=False)
    reach(tmp_path / "run", process, 3)
    stopped = rank_of(process.pid, 1)
    os.kill(stopped, signal.SIGSTOP)
    while rank_of(process.pid, 0) is not None:
        time.sleep(0.1)
    os.kill(stopped, signal.SIGKILL)  # which torchrun itself would do 30 s later
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.search(r"rank 0 has stood still for \d+ s .*it waits for rank 1, which is at step \d+ in", errors), errors


def test_a_rank_that_raises_speaks_first(tmp_path, injected):
    ended = injected(tmp_path / "run", "raise:1:4", "train.max_steps=100", ranks=2)
    assert ended.returncode == 1
    first = ended.stderr.index("injected in rank 1")
    for late in ("Connection closed", "connection reset", "Connection reset"):
        assert late not in ended.stderr[:first]


def test_all_ranks_skip_what_is_not_finite_on_one(tmp_path, injected, metrics):
    ended = injected(tmp_path / "run", "nan:1:4", "train.max_steps=8", ranks=2)
    assert ended.returncode == 0, ended.stderr
    steps = metrics(tmp_path / "run")
    assert [steps[step]["train/skipped_steps"] for step in sorted(steps)] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert all(steps[step]["train/loss"] == steps[step]["train/loss"] for step in steps)


@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_a_run_that_only_skips_gives_up_and_names_the_images(tmp_path, injected, engine):
    fault, settings = "nan:1:4:1", [f"engine.name={engine}", "engine.zero_stage=2", "train.max_steps=100"]
    ended = injected(tmp_path / "run", fault, *settings, ranks=2)
    assert ended.returncode == 1 and set(injected.codes().values()) == {2}
    line = next(line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert re.search(
        r"step 23: the gradient was not finite in 20 steps in a row .* images scene-\d+\.jpg, scene-\d+", line
    )


def test_a_loader_that_is_the_bottleneck_is_named_once(tmp_path, injected):
    ended = injected(tmp_path / "run", "slow_loading:0:0:0.03", "train.max_steps=14")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("the loader is the bottleneck") == 1
