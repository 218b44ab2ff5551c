"""Which tensors the kernels of this folder take over from torch's."""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from imgcap.models.kernels.graphs import first_line

DEVICES = frozenset({"cuda"})  # tests add the CPU, where Triton interprets
CELLS = 1024  # of an image, that attention holds at once


def fused(x: Tensor, cells: int = 1) -> bool:
    """Whether the kernels compute on this tensor: on a GPU that runs them, in float32 or less, outside of a compiler.

    torch.compile and torch.export see torch's own operations instead, and so does attention over more than `CELLS`.
    """
    return (
        x.device.type in DEVICES
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and cells <= CELLS
        and not torch.compiler.is_compiling()
        and _runs_triton(x.device)
    )


@cache
def _runs_triton(device: torch.device) -> bool:
    """Try a small kernel: Triton may be missing, or what it needs to build one."""
    if find_spec("triton") is None:
        return False
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return False  # its tensor cores know no bfloat16
    try:
        from imgcap.models.kernels.gpu.cell import NewState, lstm_cell

        gates_NG, cell_NH = torch.zeros(1, 4, device=device), torch.zeros(1, 1, device=device)
        lstm_cell([gates_NG, gates_NG], cell_NH, NewState(torch.empty_like(cell_NH), torch.empty_like(cell_NH)))
    except Exception as error:
        warnings.warn(f"Triton's kernels can't be used, torch's slower ones are: {first_line(error)}", stacklevel=2)
        return False
    return True
