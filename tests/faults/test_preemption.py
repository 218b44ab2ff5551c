"""Signals: the marker, the exit code 75 within the grace period, and a run that goes on exactly."""

import os
import signal
import time

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
