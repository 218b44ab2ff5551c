"""One LSTM cell over all steps, for a GPU: two launches a step, and two for its gradient.

Dimensions: T steps, N rows, H hidden width, G = 4H gates of an LSTM cell, S = T + 1 states.
"""

from typing import Any

import torch
from torch import Tensor

from imgcap.models.kernels.gpu.cell import NewState, lstm_cell, lstm_cell_backward
from imgcap.models.kernels.linear import weight_gradient


def recurrence(gates_TNG: Tensor, hidden_NH: Tensor, cell_NH: Tensor, weight_GH: Tensor, bias_G: Tensor) -> Tensor:
    """Run an LSTM cell, given what its inputs add to the gates; return the hidden states (T, N, H)."""
    return _Recurrence.apply(gates_TNG, hidden_NH, cell_NH, weight_GH, bias_G)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates_TNG: Tensor, hidden_NH: Tensor, cell_NH: Tensor, weight_GH: Tensor, bias_G: Tensor
    ) -> Tensor:
        steps, recurrent_NG = len(gates_TNG), torch.empty_like(gates_TNG[0])
        hidden_SNH = gates_TNG.new_empty(steps + 1, *hidden_NH.shape)
        cell_SNH = cell_NH.new_empty(steps + 1, *cell_NH.shape)
        hidden_SNH[0].copy_(hidden_NH)
        cell_SNH[0].copy_(cell_NH)
        squashed_TNG = torch.empty_like(gates_TNG, memory_format=torch.contiguous_format)
        for t in range(steps):
            torch.addmm(bias_G, hidden_SNH[t], weight_GH.t(), out=recurrent_NG)
            new = NewState(hidden_SNH[t + 1], cell_SNH[t + 1], squashed_TNG[t])
            lstm_cell([gates_TNG[t], recurrent_NG], cell_SNH[t], new)
        ctx.save_for_backward(weight_GH, squashed_TNG, hidden_SNH, cell_SNH)
        return hidden_SNH[1:]

    @staticmethod
    def backward(ctx: Any, d_hidden_TNH: Tensor) -> tuple[Tensor, ...]:
        weight_GH, squashed_TNG, hidden_SNH, cell_SNH = ctx.saved_tensors
        d_gates_TNG, d_hidden_TNH = torch.empty_like(squashed_TNG), d_hidden_TNH.contiguous()
        d_hidden_NH, d_cell_NH = torch.zeros_like(hidden_SNH[0]), torch.zeros_like(cell_SNH[0])
        for t in reversed(range(len(d_gates_TNG))):
            new = NewState(hidden_SNH[t + 1], cell_SNH[t + 1], squashed_TNG[t])
            lstm_cell_backward(new, cell_SNH[t], d_hidden_NH, d_hidden_TNH[t], d_cell_NH, d_gates_TNG[t])
            torch.mm(d_gates_TNG[t], weight_GH, out=d_hidden_NH)
        d_gates_MG = d_gates_TNG.flatten(0, 1)
        d_weight_GH = weight_gradient(d_gates_MG, hidden_SNH[:-1].flatten(0, 1))
        return d_gates_TNG, d_hidden_NH, d_cell_NH, d_weight_GH, d_gates_MG.sum(0)
