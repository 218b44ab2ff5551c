"""Timing in turns: what is compared runs alternately in one process."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Row = dict[str, Any]


def timed(run: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """The same work, returning how many seconds it took."""

    def measured() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return measured


def alternate(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, in turns, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            value = run()
            if turn:
                seconds[name].append(value)
    return seconds


def row(name: str, seconds: list[float], items: int, unit: str) -> Row:
    rates = sorted(items / value for value in seconds)
    return {
        "name": name,
        "ms": round(1000 * statistics.median(seconds), 2),
        f"{unit}_per_s": round(statistics.median(rates), 2),
        "range": [round(rates[0], 2), round(rates[-1], 2)],
    }


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
