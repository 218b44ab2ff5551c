"""Runs that something happens to."""

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

INJECT = str(Path(__file__).with_name("inject.py"))


@pytest.fixture
def injected(launch, tmp_path):
    """Like `launch`, with a fault (see inject.py); `codes` then holds what the ranks exited with."""
    codes = tmp_path / "codes"
    codes.mkdir(exist_ok=True)

    def start(run, fault, *overrides, **options):
        return launch(run, *overrides, through=(INJECT, fault), extra={"EXIT_CODES": str(codes)}, **options)

    start.codes = lambda: {int(path.name): int(path.read_text()) for path in codes.iterdir()}
    return start


@pytest.fixture
def reach():
    """Wait until a run has logged a step."""

    def wait(run, process, step):
        lines = run / "metrics.jsonl"
        while not lines.exists() or lines.read_text().count('"train/loss":') < step:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)

    return wait


@pytest.fixture
def same():
    """Compare two runs: the batches that each step saw, and the final weights."""

    def compare(metrics, run, other):
        found, expected = metrics(run), metrics(other)
        assert sorted(found) == sorted(expected)
        assert [found[step]["train/batch_hash"] for step in sorted(found)] == [
            expected[step]["train/batch_hash"] for step in sorted(expected)
        ]
        folder = f"checkpoints/step-{max(found):08d}/model.safetensors"
        weights, wanted = load_file(run / folder), load_file(other / folder)
        for name, weight in wanted.items():
            assert torch.equal(weights[name], weight), name

    return compare


def pid_of_rank(parent, rank):
    """The process that torchrun started as this rank; None where it is no more."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes()
        except OSError:  # it has just ended
            continue
        if f"\0RANK={rank}\0".encode() in b"\0" + environment + b"\0":
            return int(child)
    return None


@pytest.fixture
def rank_of():
    return pid_of_rank
