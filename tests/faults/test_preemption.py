"""Signals: the marker, the exit code 75 within the grace period, and a run that goes on exactly."""

import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.dist, pytest.mark.slow]
EXHAUSTIVE = pytest.mark.exhaustive
GRACE = 30  # of torchrun
WORKERS = ["data.workers=2", "train.max_steps=40", "checkpoint.every=10"]


@pytest.fixture
def preempted(injected):
    """Signal a run and wait for its end; returns how long that took."""

    def preempt(run, process, number=signal.SIGTERM, pid=None):
        began = time.monotonic()
        os.kill(pid or process.pid, number)
        _, errors = process.communicate(timeout=2 * GRACE)
        assert (run / "PREEMPTED").exists(), errors
        assert process.returncode == 1 and set(injected.codes().values()) == {75}, f"{injected.codes()} {errors}"
        return time.monotonic() - began

    return preempt


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(other, marks=EXHAUSTIVE) for other in (signal.SIGINT, signal.SIGUSR1))]
)
def test_in_training(tmp_path, launch, injected, metrics, reach, same, preempted, rank_of, number):
    whole, run = tmp_path / "whole", tmp_path / "run"
    process = injected(run, "none:0:0", *WORKERS, ranks=2, wait=False)
    reach(run, process, 7)
    # torchrun forwards SIGTERM and SIGINT; SIGUSR1 goes to one rank, and both end.
    preempted(run, process, number, rank_of(process.pid, 1) if number == signal.SIGUSR1 else None)
    assert launch(run, *WORKERS, ranks=2).returncode == 0
    assert not (run / "PREEMPTED").exists()
    assert launch(whole, *WORKERS, ranks=2).returncode == 0
    same(metrics, run, whole)


@pytest.mark.exhaustive
def test_in_evaluation(tmp_path, launch, injected, metrics, reach, same, preempted):
    whole, run = tmp_path / "whole", tmp_path / "run"
    settings = [*WORKERS, "eval.every=20", "eval.limit=12", "eval.batch=1", "eval.metrics=[BLEU]"]
    process = injected(run, "slow_decoding:-1:0:6", *settings, ranks=2, wait=False)
    reach(run, process, 20)
    time.sleep(1.5)  # the first of its images takes 6 s
    assert preempted(run, process) < 12
    assert max(metrics(run)) == 20
    for folder in (run, whole):
        assert launch(folder, *settings, ranks=2).returncode == 0
    same(metrics, run, whole)


@pytest.mark.exhaustive
def test_in_compilation(tmp_path, launch, injected, metrics, same, preempted, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cold"))
    settings = ["train.max_steps=3", "checkpoint.grace=3", "data.max_tokens=5"]
    process = injected(run, "none:0:0", *settings, "train.compile=default", ranks=2, wait=False)
    while not (run / "config.yaml").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(1)
    assert preempted(run, process) < 10 and not metrics(run)
    for folder in (run, whole):  # not a step was made, so that it may go on without compiling
        assert launch(folder, *settings, ranks=2).returncode == 0
    same(metrics, run, whole)


def test_a_save_slower_than_the_grace_leaves_the_earlier_checkpoint(tmp_path, launch, injected, metrics, reach, same):
    whole, run = tmp_path / "whole", tmp_path / "run"
    settings = [*WORKERS, "checkpoint.grace=4"]
    assert launch(run, *settings, "train.max_steps=40", ranks=2, wait=True).returncode == 0
    earlier = run / "checkpoints" / "step-00000040"
    settings[1] = "train.max_steps=80"
    process = injected(run, "slow_save:0:0:3", *settings, ranks=2, wait=False)
    reach(run, process, 43)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=GRACE)
    assert set(injected.codes().values()) == {75} and (run / "PREEMPTED").exists(), f"{injected.codes()} {errors}"
    assert earlier.is_dir() and list((run / "checkpoints").glob(".saving-*"))
    for folder in (run, whole):
        assert launch(folder, *settings, ranks=2).returncode == 0
    assert not list((run / "checkpoints").glob(".saving-*"))
    assert max(metrics(run)) == 80


def lines_of(errors):
    """What a run said, without torchrun's own lines."""
    return [line for line in errors.splitlines() if line.startswith(("stopping", "stopped", "ended"))]


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_says_what_happens_and_how_to_go_on(tmp_path, injected, reach, ranks):
    """Alone its workers get it too, as from a terminal; of several ranks torchrun gets it, and passes it on."""
    run = tmp_path / "run"
    process = injected(run, "none:0:0", *WORKERS, "train.max_steps=4000", ranks=ranks, wait=False)
    reach(run, process, 7)
    for pid in [process.pid, *children(process.pid)] if ranks == 1 else [process.pid]:
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=2 * GRACE)
    assert set(injected.codes().values()) == {75} and errors.count("Traceback") == ranks - 1, errors  # torchrun's own
    stopping, stopped = lines_of(errors)
    saved = (run / "checkpoints" / "latest").read_text().strip()
    assert stopping.startswith("stopping: finishing the step at hand, then saving a checkpoint, within 25 s")
    assert stopped.startswith(
        f"stopped: the last checkpoint is {run}/checkpoints/{saved} (step {int(saved[5:])}); go on"
    )
    assert stopped.endswith("train.max_steps=4000")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=EXHAUSTIVE)])
def test_a_second_ctrl_c_ends_at_once(tmp_path, injected, launch, reach, rank_of, ranks):
    run, settings = tmp_path / "run", [*WORKERS, "train.max_steps=4000"]
    process = injected(run, "slow_save:0:0:60", *settings, "checkpoint.every=0", ranks=ranks, wait=False)
    reach(run, process, 7)
    pids = [rank_of(process.pid, rank) for rank in range(ranks)] if ranks > 1 else [process.pid]
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None, "it saves slowly"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=GRACE)
    assert time.monotonic() - began < 5
    assert set(injected.codes().values()) == {130}, f"{injected.codes()} {errors}"
    assert lines_of(errors)[-1].startswith("ended at once; there is no checkpoint yet; go on with: ")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def children(pid):
    """The processes that a process has started, among them the loader's workers."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
