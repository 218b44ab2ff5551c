"""Timing in turns: what is compared runs alternately in one process."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from imgcap.models.kernels.graphs import WARM
from imgcap.models.kernels.linear import product
from imgcap.models.precision import set_float32_matmul

Row = dict[str, Any]
PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")}


def timed(run: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Wrap a piece of work so that it returns how many seconds it took."""

    def measured() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return measured


def warm_up(device: torch.device) -> int:
    """Calls after which nothing is new: on a GPU a step may be captured after the first ones, and is then replayed."""
    return WARM + 3 if device.type == "cuda" else 1


def alternate(runs: Mapping[str, Callable[[], float]], repeats: int, rounds: int = 1) -> dict[str, list[float]]:
    """Seconds of each run, in turns, after so many rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-rounds, repeats):
        for name, run in runs.items():
            value = run()
            if turn >= 0:
                seconds[name].append(value)
    return seconds


def row(name: str, seconds: list[float], items: int, unit: str, usual: list[float] | None = None) -> Row:
    """Median and range of a run over so many items, and how many times as fast it is as the usual way."""
    rates = sorted(items / value for value in seconds)
    ratio = {} if usual is None else {"ratio": round(statistics.median(usual) / statistics.median(seconds), 2)}
    return {
        "name": name,
        "ms": round(1000 * statistics.median(seconds), 2),
        f"{unit}_per_s": round(statistics.median(rates), 2),
        "range": [round(rates[0], 2), round(rates[-1], 2)],
        **ratio,
    }


@dataclass(frozen=True)
class Ceilings:
    """What the device can do, measured: operations a second of each precision, and bytes a second."""

    products: dict[str, float]
    bandwidth: float

    def floor_ms(self, precision: str, operations: float = 0.0, moved: float = 0.0) -> float:
        """The least time for so many operations of matrix products and so many bytes."""
        return round(1000 * max(operations / self.products[precision], moved / self.bandwidth), 2)


@cache
def ceilings(device: torch.device) -> Ceilings:
    """The best of several products of large square matrices, and of several copies and readings beyond any cache."""
    size = 8192 if device.type == "cuda" else 2048
    products = {}
    for precision in PRECISIONS[device.type]:
        set_float32_matmul(precision)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        x, y = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = min(alternate({"product": timed(partial(product, x, y), device)}, 5)["product"])
        products[precision] = 2 * size**3 / seconds
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    moves = alternate({"copy": timed(lambda: target.copy_(source), device), "read": timed(source.sum, device)}, 5)
    return Ceilings(products, source.nbytes * max(2 / min(moves["copy"]), 1 / min(moves["read"])))


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
