"""A stack of LSTM cells over all steps, where nothing that a step reads depends on the step before but its state.

What the cells read is multiplied for all steps at once, and so are the gradients of their weights, which are written
out: autograd would compute one of the weight's size for each step, and add them up.

Dimensions: T steps, N rows, H hidden width, G = 4H gates of an LSTM cell, M = TN.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import linear, product, weight_gradient
from imgcap.models.kernels.lstm_cell import CellMemory, lstm_cell, lstm_cell_backward

Maybe = Tensor | None


def run_stack(
    cells: Sequence[nn.LSTMCell], dropout: nn.Dropout, gates_TNG: Tensor, hidden_LNH: Tensor, cell_LNH: Tensor
) -> Tensor:
    """Run a stack of cells over all steps, from the first one's input gates to the top hidden states (T, N, H).

    `dropout` acts on what each cell reads of the one below.
    """
    hidden_TNH, dtype = None, gates_TNG.dtype
    for index, cell in enumerate(cells):
        if hidden_TNH is not None:
            gates_TNG = linear(dropout(hidden_TNH), cell.weight_ih.to(dtype), cell.bias_ih.to(dtype))
        weight_GH, bias_G = cell.weight_hh.to(dtype), cell.bias_hh.to(dtype)
        recurrence = _recurrence_on_gpu() if fused(gates_TNG) else _Recurrence.apply
        hidden_TNH = recurrence(gates_TNG, hidden_LNH[index], cell_LNH[index], weight_GH, bias_G)
    assert hidden_TNH is not None, "a stack has a cell"
    return hidden_TNH


def _recurrence_on_gpu() -> Callable[..., Tensor]:
    from imgcap.models.kernels.gpu.recurrent import recurrence  # Triton is needed here alone, and not everywhere there

    return recurrence


class _Recurrence(torch.autograd.Function):
    """Autograd function of one LSTM cell over all steps; returns its hidden states (T, N, H)."""

    @staticmethod
    def forward(
        ctx: Any, gates_TNG: Tensor, hidden_NH: Tensor, cell_NH: Tensor, weight_GH: Tensor, bias_G: Tensor
    ) -> Tensor:
        before, memories = [], []
        for gates_NG in gates_TNG.unbind():
            before.append(hidden_NH)
            gates_NG = gates_NG + product(hidden_NH, weight_GH, bias_G)
            hidden_NH, cell_NH, memory = lstm_cell(gates_NG, cell_NH)
            memories.append(memory)
        before_TNH = torch.stack(before)
        ctx.save_for_backward(weight_GH, before_TNH, *chain(*memories))
        return torch.cat([before_TNH[1:], hidden_NH[None]])

    @staticmethod
    def backward(ctx: Any, d_hidden_TNH: Tensor) -> tuple[Maybe, ...]:
        weight_GH, before_TNH, *saved = ctx.saved_tensors
        width = len(CellMemory._fields)
        memories = [CellMemory(*saved[first : first + width]) for first in range(0, len(saved), width)]
        d_hidden_NH, d_cell_NH = torch.zeros_like(before_TNH[0]), torch.zeros_like(memories[0].cell_NH)
        gates: list[Tensor] = []
        for memory, d_given_NH in zip(reversed(memories), reversed(d_hidden_TNH.unbind()), strict=True):
            d_gates_NG, d_cell_NH = lstm_cell_backward(memory, d_hidden_NH + d_given_NH, d_cell_NH)
            d_hidden_NH = product(d_gates_NG, weight_GH.t())
            gates.append(d_gates_NG)
        d_gates_TNG = torch.stack(gates[::-1])
        d_gates_MG = d_gates_TNG.flatten(0, 1)
        d_weight_GH = weight_gradient(d_gates_MG, before_TNH.flatten(0, 1))
        return d_gates_TNG, d_hidden_NH, d_cell_NH, d_weight_GH, d_gates_MG.sum(0)
