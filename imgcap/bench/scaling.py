"""Images a second of launch/train.py on one rank and on several, each with a core of its own and as many images."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imgcap.bench.pinned import cores
from imgcap.errors import UserError

TRAIN = Path(__file__).parents[2] / "launch" / "train.py"
WARM_UP = 2  # steps before the first log


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--images", type=int, default=32, help="of a rank's step")
    parser.add_argument("--steps", type=int, default=8, help="that a run measures")
    parser.add_argument("--image-size", type=int, default=224)


def bench_scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    """In turns; what a run says of itself (metrics.jsonl) after its first steps, loading included."""
    if not hasattr(os, "sched_getaffinity") or len(cores()) < arguments.ranks:
        raise UserError(f"{arguments.ranks} ranks need as many cores to themselves; give fewer --ranks")
    counts = (1, arguments.ranks)
    rates: dict[int, list[float]] = {ranks: [] for ranks in counts}
    for _ in range(arguments.repeats):
        for ranks in counts:
            rates[ranks].append(_images_per_second(ranks, arguments))
    medians = {ranks: statistics.median(values) for ranks, values in rates.items()}
    rows = [
        {
            "name": f"{ranks} ranks",
            "images_per_s": round(medians[ranks], 2),
            "range": [round(min(rates[ranks]), 2), round(max(rates[ranks]), 2)],
            "ratio": round(medians[ranks] / medians[1], 3),
        }
        for ranks in counts
    ]
    return {"rows": rows}


def _images_per_second(ranks: int, arguments: argparse.Namespace) -> float:
    with TemporaryDirectory() as folder:
        steps = WARM_UP + arguments.steps
        overrides = [
            f"data={{shards: {arguments.shards}, image_size: {arguments.image_size}, workers: 1}}",
            "model.encoder={name: resnet50, weights: none}",
            f"train={{global_batch: {ranks * arguments.images}, max_steps: {steps}, precision: bf16}}",
            "eval={every: 100ep, limit: 2, beam: 1, metrics: [BLEU]}",
            f"log={{every: {WARM_UP}, tensorboard: false}}",
            f"run_dir={folder}/run",
        ]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [*torchrun, "-m", "imgcap.bench.pinned", str(TRAIN), "--config", os.devnull, *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if ended.returncode:
            raise RuntimeError(f"launch/train.py on {ranks} ranks failed:\n{ended.stderr[-2000:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    logs = [json.loads(line) for line in lines]
    measured = [log["perf/images_per_s"] for log in logs if "perf/images_per_s" in log][1:]
    return statistics.harmonic_mean(measured)
