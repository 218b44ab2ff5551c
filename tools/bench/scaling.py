"""Images a second of launch/train.py on one rank and on several, each with a core of its own and as many images.

The floor beside it is the machine's own: as many runs of one rank at once, which exchange nothing.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imgcap.errors import UserError
from tools.bench.pinned import __file__ as PINNED
from tools.bench.pinned import cores

TRAIN = Path(__file__).parents[2] / "launch" / "train.py"
WARM_UP = 2  # steps before the first log
OPTIONS = {"ranks": 2, "images": (64, "of a rank's step"), "steps": (6, "that a run measures"), "image-size": 224}


def bench_scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Ranks that each have a core of their own, in turns with one, and with as many runs of one.

    A rate is what a run says of itself (metrics.jsonl) after its first steps, loading included.
    """
    if not hasattr(os, "sched_getaffinity") or len(cores()) < arguments.ranks:
        raise UserError(f"{arguments.ranks} ranks need as many cores to themselves; give fewer --ranks")
    ranks = arguments.ranks
    ways = {"1 rank": [1], f"{ranks} ranks": [ranks], f"{ranks} runs of 1 rank": [1] * ranks}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, runs in ways.items():
            rates[name].append(_images_per_second(runs, arguments))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [
        {
            "name": name,
            "images_per_s": round(medians[name], 2),
            "range": [round(min(rates[name]), 2), round(max(rates[name]), 2)],
            "ratio": round(medians[name] / medians["1 rank"], 3),
        }
        for name in ways
    ]
    return {"rows": rows}


def _images_per_second(runs: list[int], arguments: argparse.Namespace) -> float:
    """Images a second of runs at the same time, each of so many ranks; together."""
    mine = os.sched_getaffinity(0)
    free = cores()
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # a GPU would be every rank's
    with TemporaryDirectory() as folder, contextlib.ExitStack() as started:
        folders = [Path(folder) / str(number) for number in range(len(runs))]
        processes = []
        for run_dir, ranks in zip(folders, runs, strict=True):
            os.sched_setaffinity(0, free[:ranks])  # a run inherits the cores that its ranks divide among them
            free = free[ranks:]
            command = _command(ranks, run_dir, arguments)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
            processes.append(started.enter_context(process))
            os.sched_setaffinity(0, mine)
        for process in processes:
            errors = process.communicate()[1]
            if process.returncode:
                raise RuntimeError(f"launch/train.py on {runs} ranks failed:\n{errors[-2000:]}")
        return sum(_rate(run_dir) for run_dir in folders)


def _command(ranks: int, run_dir: Path, arguments: argparse.Namespace) -> list[str]:
    overrides = [
        f"data={{shards: {arguments.shards}, image_size: {arguments.image_size}, workers: 1}}",
        "model.encoder={name: resnet50, weights: none}",
        f"train={{global_batch: {ranks * arguments.images}, max_steps: {WARM_UP + arguments.steps}, precision: bf16}}",
        "eval={every: 100ep, limit: 2, beam: 1, metrics: [BLEU]}",
        f"log={{every: {WARM_UP}, tensorboard: false}}",
        f"run_dir={run_dir}",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return [*torchrun, str(PINNED), str(TRAIN), "--config", os.devnull, *overrides]


def _rate(run_dir: Path) -> float:
    logs = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return statistics.harmonic_mean([log["perf/images_per_s"] for log in logs if "perf/images_per_s" in log][1:])
