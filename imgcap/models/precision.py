"""The number formats of training and evaluation, by their names in the configuration."""

from contextlib import AbstractContextManager

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Context of mixed precision for bf16 and fp16; for fp32 and tf32 one that changes nothing."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def set_float32_matmul(precision: str) -> None:
    """Let float32 matrix products use TensorFloat-32 for `tf32`, full float32 otherwise."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
