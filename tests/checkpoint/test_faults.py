"""Kills and full disks, for real."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imgcap.checkpoint.load import load_checkpoint
from imgcap.checkpoint.save import save_checkpoint
from imgcap.errors import UserError

# One interpreter that has torch loaded forks a saver, kills it after a random time and checks what is there.
KILLED_SAVERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from imgcap.checkpoint.load import load_checkpoint
from imgcap.checkpoint.save import save_checkpoint

torch.set_num_threads(1)
root, chance = Path(sys.argv[1]), random.Random(7)

def save_for_ever(step, told):
    while True:
        step += 1
        filled = torch.full((200_000,), float(step))
        save_checkpoint(root, step, {"weight": filled}, {"moment": filled + 1}, {"step": step}, 2, best=step % 3 == 0)
        os.write(told, step.to_bytes(4, "big"))

newest, best_saved = 0, False
for _ in range(12):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(newest, write_end)
    os.close(write_end)
    confirmed = int.from_bytes(os.read(read_end, 4), "big")
    time.sleep(chance.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = os.read(read_end, 1 << 16)
    confirmed = int.from_bytes(told[-4:], "big") if told else confirmed
    loaded = load_checkpoint(root)
    assert loaded.step >= confirmed, (loaded.step, confirmed)
    assert loaded.step == loaded.state["step"]
    assert loaded.model["weight"].eq(loaded.step).all() and loaded.training["moment"].eq(loaded.step + 1).all()
    # A kill may leave a folder in place that `best` does not name yet; a save that has returned is named.
    best_saved |= any(step % 3 == 0 for step in range(newest + 1, confirmed + 1))
    if best_saved:
        assert load_checkpoint(root, "best").step % 3 == 0
    newest = loaded.step
assert newest >= 12, newest
"""


@pytest.mark.slow
def test_a_kill_at_any_instant_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_SAVERS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "passed over" not in done.stderr  # a folder with its final name is always whole


@pytest.mark.parametrize("model_share", [0.0, 0.5, 1.0])
def test_a_full_disk_leaves_the_earlier_checkpoints(small_disk: Callable[[str], Path], model_share: float) -> None:
    disk = small_disk("4m")
    root, ballast = disk / "checkpoints", disk / "ballast"
    model = {"weight": torch.ones(int(model_share * 250_000))}
    training = {"moment": torch.ones(250_000 - len(model["weight"]))}
    save_checkpoint(root, 1, model, training, {}, keep=2, best=True)
    before = sorted(path for path in disk.rglob("*"))
    outcomes = []
    for free in range(4, 1100, 4):  # KiB: a page more each time, so each write is once the first to fail
        if 30 < free < 940 and free % 128:
            continue
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free * 1024))
        try:
            save_checkpoint(root, 2, model, training, {}, keep=2)
            outcomes.append("saved")
            break
        except UserError as error:
            outcomes.append("refused")
            assert "disk full" in str(error) and str(root) in str(error) and "\n" not in str(error)
        ballast.unlink()
        assert sorted(disk.rglob("*")) == before
        assert load_checkpoint(root).step == load_checkpoint(root, "best").step == 1
    assert outcomes.count("refused") > 10 and outcomes[-1] == "saved"
    assert load_checkpoint(root).step == 2


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, {}, {}, {}, keep=1)
