"""A stack of LSTM cells over all steps, where nothing that a step reads depends on the step before but its state.

What the cells read is multiplied for all steps at once, and so are the gradients of their weights, which are written
out: autograd would compute one of the weight's size for each step, and add them up.

Dimensions: T steps, N captions, H hidden width, G = 4H gates of an LSTM cell, M rows: N at each step, or, of packed
captions, the first so many of the N at each.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import linear, product, weight_gradient
from imgcap.models.kernels.lstm_cell import CellMemory, longer, lstm_cell, lstm_cell_backward

Maybe = Tensor | None


def run_stack(
    cells: Sequence[nn.LSTMCell],
    dropout: nn.Dropout,
    gates_MG: Tensor,
    hidden_LNH: Tensor,
    cell_LNH: Tensor,
    sizes: Sequence[int],
) -> Tensor:
    """Run a stack of cells over all steps, from the first one's input gates to the top hidden states (M, H).

    Step t has the first `sizes[t]` of the N captions, never more than the step before. `dropout` acts on what each cell
    reads of the one below.
    """
    hidden_MH, dtype = None, gates_MG.dtype
    for index, cell in enumerate(cells):
        if hidden_MH is not None:
            gates_MG = linear(dropout(hidden_MH), cell.weight_ih.to(dtype), cell.bias_ih.to(dtype))
        states = hidden_LNH[index], cell_LNH[index], cell.weight_hh.to(dtype), cell.bias_hh.to(dtype)
        if fused(gates_MG):
            hidden_MH = _recurrence_on_gpu()(gates_MG.unflatten(0, (len(sizes), -1)), *states).flatten(0, 1)
        else:
            hidden_MH = _Recurrence.apply(list(sizes), gates_MG, *states)
    assert hidden_MH is not None, "a stack has a cell"
    return hidden_MH


def _recurrence_on_gpu() -> Callable[..., Tensor]:
    from imgcap.models.kernels.gpu.recurrent import recurrence  # Triton is needed here alone, and not everywhere there

    return recurrence


class _Recurrence(torch.autograd.Function):
    """Autograd function of one LSTM cell over all steps; returns its hidden states (M, H)."""

    @staticmethod
    def forward(
        ctx: Any,
        sizes: list[int],
        gates_MG: Tensor,
        hidden_NH: Tensor,
        cell_NH: Tensor,
        weight_GH: Tensor,
        bias_G: Tensor,
    ) -> Tensor:
        before, after, memories = [], [], []
        for size, gates_NG in zip(sizes, gates_MG.split(sizes), strict=True):
            before.append(hidden_NH[:size])
            gates_NG = gates_NG + product(before[-1], weight_GH, bias_G)
            hidden_NH, cell_NH, memory = lstm_cell(gates_NG, cell_NH[:size])
            after.append(hidden_NH)
            memories.append(memory)
        ctx.sizes = sizes
        ctx.save_for_backward(weight_GH, torch.cat(before), *chain(*memories))
        return torch.cat(after)

    @staticmethod
    def backward(ctx: Any, d_hidden_MH: Tensor) -> tuple[Maybe, ...]:
        weight_GH, before_MH, *saved = ctx.saved_tensors
        width = len(CellMemory._fields)
        memories = [CellMemory(*saved[first : first + width]) for first in range(0, len(saved), width)]
        d_hidden_NH, d_cell_NH = d_hidden_MH.new_zeros(0, d_hidden_MH.shape[1]), memories[-1].cell_NH[:0]
        gates: list[Tensor] = []
        for memory, d_given_NH in zip(reversed(memories), reversed(d_hidden_MH.split(ctx.sizes)), strict=True):
            d_hidden_NH = d_given_NH + longer(d_hidden_NH, len(d_given_NH))
            d_gates_NG, d_cell_NH = lstm_cell_backward(memory, d_hidden_NH, longer(d_cell_NH, len(d_given_NH)))
            d_hidden_NH = product(d_gates_NG, weight_GH.t())
            gates.append(d_gates_NG)
        d_gates_MG = torch.cat(gates[::-1])
        d_weight_GH = weight_gradient(d_gates_MG, before_MH)
        return None, d_gates_MG, d_hidden_NH, d_cell_NH, d_weight_GH, d_gates_MG.sum(0)
