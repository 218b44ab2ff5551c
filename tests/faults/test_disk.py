"""A disk that fills up under a run of two ranks."""

import shutil

import pytest

from imgcap.checkpoint.load import load_checkpoint

pytestmark = [pytest.mark.dist, pytest.mark.slow]


@pytest.mark.exhaustive
def test_a_full_disk_ends_all_ranks_and_leaves_the_earlier_checkpoint(small_disk, injected):
    run = small_disk("160m") / "run"
    settings = ["checkpoint.every=5", "checkpoint.keep=100", "train.max_steps=100"]  # of 46 MB each
    ended = injected(run, "none:0:0", *settings, ranks=2)
    assert ended.returncode == 1 and injected.codes()[0] == 2, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert errors and "disk full" in errors[0] and str(run) in errors[0]
    saved = sorted((run / "checkpoints").glob("step-*"))
    assert saved and load_checkpoint(run / "checkpoints").path == saved[-1]
    shutil.rmtree(saved[0])
    assert injected(run, "none:0:0", "checkpoint.keep=1", "train.max_steps=20", ranks=2).returncode == 0
