"""How a Triton kernel is launched, and the sizes that all of them choose alike."""

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | float | None, warps: int = 4, **sizes: Any) -> None:
    """Run a kernel's programs on the device of its tensors, of which the first argument is one.

    Their loops are short: to load ahead would take shared memory from the programs beside, which hide the same wait.
    """
    if 0 in grid:
        return  # no rows
    assert isinstance(arguments[0], Tensor)
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, num_warps=warps, num_stages=1, **sizes)


def stride(x_NX: Tensor) -> int:
    """Distance between rows, whose entries lie side by side."""
    assert x_NX.ndim == 2 and (x_NX.stride(1) == 1 or x_NX.shape[1] == 1), "a row is dense"
    return x_NX.stride(0)


def block(size: int, least: int, most: int) -> int:
    """The power of two from `least` to `most` that a size fills best: the next one, where that is among them."""
    return min(max(1 << (size - 1).bit_length(), least), most)


def pieces(size: int, of: int) -> int:
    """How many pieces of one size cover another."""
    return -(-size // of)
