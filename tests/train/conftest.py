"""A small shard set, and training as a user starts it: launch/train.py in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = [
    "data.image_size=32",
    "data.workers=0",
    "data.augment=light",
    "model.encoder.name=resnet18",
    "model.encoder.weights=none",
    "model.decoder.embed_dim=16",
    "model.decoder.hidden_dim=24",
    "model.decoder.attention_dim=16",
    "train.global_batch=8",
    "train.epochs=100",
    "log.every=1",
    "log.tensorboard=false",
    "eval.every=0",
    "eval.metrics=[]",
    "eval.limit=4",
    "eval.beam=2",
    "checkpoint.every=0",
]


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """90 demo scenes as shards: 60 for training, the rest for the other splits."""
    folder = tmp_path_factory.mktemp("shards") / "demo"
    command = [sys.executable, "tools/build_shards.py", "demo", "--out", str(folder), "--limit", "60", "--workers", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def launch(shards):
    """Start launch/train.py on `ranks` processes; returns the finished process."""

    def start(run, *overrides, ranks=1, options=(), wait=True):
        python = [sys.executable]
        if ranks > 1:
            python += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        settings = [f"run_dir={run}", f"data.shards={shards}", *TINY, *overrides]
        command = [*python, "launch/train.py", "--config", os.devnull, *options, *settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        if not wait:
            return process
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return start


@pytest.fixture
def metrics():
    """The training lines of a run's metrics.jsonl, by step."""

    def read(run):
        lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line for line in lines if "train/loss" in line}

    return read
