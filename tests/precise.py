"""Comparison with float64, by the dtype of what was computed."""

import torch
from torch import Tensor

# Of the largest entry: what rounding leaves of a sum, and a few of them one after another.
TOLERANCE = {torch.float32: 4e-6, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Assert that a tensor is that of float64 but for the rounding of a dtype."""
    assert found.shape == expected.shape
    error, largest = (found.double() - expected).abs().max(), expected.abs().max()
    assert error <= factor * TOLERANCE[dtype] * largest + 1e-9, f"{error:.2e} of {largest:.2e}"


def exact(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Copies in float64 that learn where the tensors do."""
    return [x if x is None else x.detach().double().requires_grad_(x.requires_grad) for x in tensors]
