"""An LSTM cell's pointwise part and its gradient. The gates are in torch's order: input, forget, cell, output.

Dimensions: N rows, H hidden width, G = 4H gates. The leading dimensions may be several.
"""

from typing import NamedTuple

import torch


class CellMemory(NamedTuple):
    """What the gradient needs."""

    cell_NH: torch.Tensor  # before
    activated_NG: torch.Tensor  # the gates after their sigmoid or tanh
    squashed_NH: torch.Tensor  # tanh of the cell after


def lstm_cell(gates_NG: torch.Tensor, cell_NH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, CellMemory]:
    """Return the new hidden state, in the gates' dtype, the new cell, in the old one's, and the memory."""
    entry, forget, candidate, output = gates_NG.chunk(4, dim=-1)
    entry, forget, candidate, output = entry.sigmoid(), forget.sigmoid(), candidate.tanh(), output.sigmoid()
    after_NH = forget * cell_NH + entry * candidate
    squashed_NH = after_NH.tanh()
    activated_NG = torch.cat([entry, forget, candidate, output], dim=-1)
    return (output * squashed_NH).to(gates_NG.dtype), after_NH, CellMemory(cell_NH, activated_NG, squashed_NH)


def lstm_cell_backward(
    memory: CellMemory, d_hidden_NH: torch.Tensor, d_cell_NH: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """From the gradients of what `lstm_cell` returned to those of the gates and of the old cell."""
    entry, forget, candidate, output = memory.activated_NG.chunk(4, dim=-1)
    d_cell_NH = d_cell_NH + d_hidden_NH * output * (1 - memory.squashed_NH.square())
    d_gates = (
        d_cell_NH * candidate * entry * (1 - entry),
        d_cell_NH * memory.cell_NH * forget * (1 - forget),
        d_cell_NH * entry * (1 - candidate.square()),
        d_hidden_NH * memory.squashed_NH * output * (1 - output),
    )
    return torch.cat(d_gates, dim=-1).to(entry.dtype), d_cell_NH * forget
