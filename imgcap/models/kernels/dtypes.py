"""Which dtype a computation runs in, under autocast and without it."""

import torch
from torch import Tensor


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a matmul with `weight`: autocast's where it is on, else the weight's own."""
    device_type = weight.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums and cell states of this one are kept: at least float32."""
    return torch.promote_types(dtype, torch.float32)
