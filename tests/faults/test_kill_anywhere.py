"""kill -9 at 50 random instants of a run that saves at each step: each resume reads whole bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS, STEPS = 50, 700

# One interpreter that has everything loaded forks runs of launch/train.py and kills them.
KILLER = """
import os, random, runpy, signal, sys, time
from pathlib import Path
import torch
import imgcap.training.assembly, torchvision, spacy

torch.set_num_threads(1)
run, kills, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
chance, phases = random.Random(7), {}

def steps_saved():
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))

def start(*last):
    child = os.fork()
    if child == 0:
        log = os.open(run.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 2)
        sys.argv = ["launch/train.py", *arguments, *last]
        try:
            runpy.run_path("launch/train.py", run_name="__main__")
        except SystemExit as error:
            os._exit(error.code)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(99)
        os._exit(0)
    return child

for kill in range(kills):
    before, child = steps_saved(), start()
    while steps_saved() == before:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), run.with_suffix(".log").read_text()[-2000:]
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.15))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    inside = sorted(path.name.split("-")[1] for path in (run / "checkpoints").glob(".saving-*"))
    files = sorted(path.name for path in (run / "checkpoints").glob(".saving-step*/*"))
    phase = f"{len(files)} files, pointers: {len(inside) - bool(files)}" if inside else "between saves"
    phases[phase] = phases.get(phase, 0) + 1
assert os.waitpid(start("checkpoint.every=0"), 0)[1] == 0, run.with_suffix(".log").read_text()[-2000:]
print(phases)
"""


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_killed_fifty_times_ends_at_the_same_weights(tmp_path, launch, shards, metrics, same):
    settings = [f"train.max_steps={STEPS}", "checkpoint.every=1", "model.encoder.train=none", "log.every=1"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert launch(whole, *settings[:1], *settings[2:]).returncode == 0
    command = launch(run, *settings, show=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, run, str(KILLS), *command[2:]],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == 0, killed.stderr
    assert len(eval(killed.stdout)) >= 4, killed.stdout  # it was killed in different places of a save
    assert "passed over" not in run.with_suffix(".log").read_text()
    same(metrics, run, whole)
