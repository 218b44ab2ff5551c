"""The number formats of training and evaluation, by their names in the configuration."""

from contextlib import AbstractContextManager

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BY_CPU = {  # torch's names of what processors can do, x86 before ARM
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Context of mixed precision for bf16 and fp16; for fp32 and tf32 one that changes nothing."""
    dtype = _AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def is_emulated(device: torch.device, precision: str) -> bool:
    """Whether a precision is known to be slower than fp32 on a device, which has no arithmetic of its own for it."""
    if device.type == "cuda":  # all of them have fp16
        return precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or precision not in _BY_CPU or not hasattr(torch.cpu, "get_capabilities"):
        return False
    computes = torch.cpu.get_capabilities()
    return not any(computes.get(name) for name in _BY_CPU[precision])


def set_float32_matmul(precision: str) -> None:
    """Let float32 matrix products use TensorFloat-32 for `tf32`, full float32 otherwise."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
