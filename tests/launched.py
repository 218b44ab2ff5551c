"""Runs that tests launch as users do: how they are killed and taken up again, and a small Transformer for them."""

import os
import signal
import time

# In the place of TINY's whole section, whose keys are of the LSTMs.
TRANSFORMER = ["model.decoder={type: transformer, width: 16, heads: 2, layers: 2, feedforward: 24, image_layers: 1}"]


def done(process):
    assert process.returncode == 0, process.stderr
    return process


def whole_and_killed(folder, launch, settings):
    """Two runs of 40 steps: one that never stopped, and one that was killed after some checkpoint and went on."""
    whole, killed = folder / "whole", folder / "killed"
    done(launch(whole, *settings))
    process = launch(killed, *settings, wait=False)
    lines = killed / "metrics.jsonl"
    while not lines.exists() or len(lines.read_text().splitlines()) < 15:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = sorted((killed / "checkpoints").glob("step-*"))
    assert saved and saved[-1].name < "step-00000040", "it was killed too late to show anything"
    done(launch(killed, *settings))
    return whole, killed
