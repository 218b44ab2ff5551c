"""Linear layers, in float32 on an x86 processor that is not Intel's by oneDNN.

torch gives float32 products to MKL, which uses half of the vector width of an AMD processor: 200 against 440
GFLOP/s on two cores of Zen 5. On Intel's it is the faster one, three times so where operands are transposed.
Elsewhere, and in other dtypes, all of this is `torch.nn.functional.linear`.
"""

import platform
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_X86 = platform.machine() in ("x86_64", "AMD64")


def _made_by_intel() -> bool:
    try:
        processor = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        processor = platform.processor()
    return "GenuineIntel" in processor or sys.platform == "darwin"  # Apple's x86 machines


_ONEDNN_IS_FASTER = _X86 and not (_made_by_intel() and torch.backends.mkl.is_available())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x @ weight.t() + bias, without autograd. `x` may have any leading dimensions."""
    # Of weights that are columns of others, oneDNN has a reference implementation only, a thousand times slower.
    if _by_onednn(x) and (weight.is_contiguous() or weight.t().is_contiguous()):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def weight_gradient(d_y: Tensor, x: Tensor) -> Tensor:
    """Gradient of the weight in y = product(x, weight), for M rows of y and x."""
    if d_y.is_contiguous() and d_y.numel() > x.numel() and _by_onednn(x):
        return product(x.t(), d_y.t()).t()  # oneDNN copies its transposed first argument: let it be the smaller
    return product(d_y.t(), x.t())


def packed(weight: Tensor) -> Tensor:
    """Lay a weight out as oneDNN multiplies it, where that pays: for many products, which would each do it anew.

    Only `linear` reads what is returned, without gradients and compilation.
    """
    by_onednn = _onednn_takes(weight) or (weight.dtype == torch.bfloat16 and _bfloat16_by_onednn(weight.device))
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach()) if by_onednn else weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear`, by oneDNN where that is faster."""
    if not torch.compiler.is_compiling() and weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    if _by_onednn(x) and weight.dtype == x.dtype:
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """Linear layer like `torch.nn.Linear`, by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        flat_d_y = d_y.flatten(0, -2)
        return (
            product(d_y, weight.t()) if needs_x else None,
            weight_gradient(flat_d_y, x.flatten(0, -2)) if needs_weight else None,
            flat_d_y.sum(0) if needs_bias else None,
        )


def _bfloat16_by_onednn(device: torch.device) -> bool:
    return _X86 and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _by_onednn(x: Tensor) -> bool:
    return _ONEDNN_IS_FASTER and _onednn_takes(x)


def _onednn_takes(x: Tensor) -> bool:
    return (
        _X86
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )
