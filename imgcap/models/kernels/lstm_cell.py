"""An LSTM cell's pointwise part and its gradient. The gates are in torch's order: input, forget, cell, output.

Dimensions: N rows, H hidden width, G = 4H gates. The leading dimensions may be several.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class CellMemory(NamedTuple):
    """What an LSTM cell's gradient needs: the cell before, the gates after sigmoid or tanh, tanh of the cell after."""

    cell_NH: Tensor
    entry_NH: Tensor
    forget_NH: Tensor
    candidate_NH: Tensor
    output_NH: Tensor
    squashed_NH: Tensor


def longer(x: Tensor, length: int) -> Tensor:
    """`x` with zeros behind: of captions sorted by length, those that have ended tell the others nothing."""
    return x if len(x) == length else F.pad(x, (0, 0) * (x.ndim - 1) + (0, length - len(x)))


def lstm_cell(gates_NG: Tensor, cell_NH: Tensor) -> tuple[Tensor, Tensor, CellMemory]:
    """Run an LSTM cell; return the hidden state, in the gates' dtype, the cell, in the old one's, and the memory."""
    entry, forget, candidate, output = gates_NG.chunk(4, dim=-1)
    entry, forget, candidate, output = entry.sigmoid(), forget.sigmoid(), candidate.tanh(), output.sigmoid()
    after_NH = forget * cell_NH + entry * candidate
    squashed_NH = after_NH.tanh()
    memory = CellMemory(cell_NH, entry, forget, candidate, output, squashed_NH)
    return (output * squashed_NH).to(gates_NG.dtype), after_NH, memory


def lstm_cell_backward(memory: CellMemory, d_hidden_NH: Tensor, d_cell_NH: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of the old cell, from those of the two states that `lstm_cell` returned."""
    cell, entry, forget, candidate, output, squashed = memory
    d_cell_NH = d_cell_NH + aten.tanh_backward(d_hidden_NH * output, squashed)
    d_gates = (
        aten.sigmoid_backward(d_cell_NH * candidate, entry),
        aten.sigmoid_backward(d_cell_NH * cell, forget),
        aten.tanh_backward(d_cell_NH * entry, candidate),
        aten.sigmoid_backward(d_hidden_NH * squashed, output),
    )
    return torch.cat([gate.to(entry.dtype) for gate in d_gates], dim=-1), d_cell_NH * forget
