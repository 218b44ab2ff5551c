"""All teacher-forced steps of the attention LSTM as one differentiable function, its gradient written out.

Autograd would compute for each step and each weight a gradient of the weight's size, and add them up. Here a
weight's gradient is one matrix product over all steps. The plain loop that defines what is computed is
`LSTMStackDecoder.read`; a step of it, in the terms of this file:

    query, top_recurrent, gate = hidden[top] @ top_QH.t() + top_bias_Q
    attention = softmax(tanh(projected + query) @ score)            over the cells
    read = sigmoid(gate) * (attention @ values)                     without a gate, the context itself
    gates = word_gates + read @ context_GX.t()                      then the cells, one after another

A tanh is computed as 2 sigmoid(2x) - 1, by torch's sigmoid, several times as fast on a CPU. The factors go into the
small operands, once for all steps; softmax does not see the constant.

Dimensions: L layers, B images, K captions an image, N = BK, T steps, P grid cells, E encoder width, H hidden width,
A attention width, G = 4H gates of an LSTM cell, X = E or G, Q = A + G (+ E with a gate), M rows: N at each step, or,
of packed captions, the first so many of the N at each.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.models.kernels.linear import product, weight_gradient
from imgcap.models.kernels.lstm_cell import CellMemory, longer, lstm_cell, lstm_cell_backward

Maybe = Tensor | None


class Attending(NamedTuple):
    """Cells that every step attends to, and the weights around the attention.

    X is E, or G where `context_GX` is None: then the cells' values are already what they add to the first cell's
    gates. Without a gate that is the same, the average of products being the product of the average.
    """

    values_BPX: Tensor
    projected_BPA: Tensor
    score_A: Tensor
    score_bias_1: Tensor  # softmax does not see it: its gradient is zero
    context_GX: Maybe  # the first cell's input weights, the context's columns
    top_QH: Tensor  # the weights of query, top recurrence and gate, side by side
    top_bias_Q: Tensor

    @property
    def widths(self) -> list[int]:
        """Widths of the three products of the top layer's hidden state; the gate's is 0 where there is none."""
        query, gates = len(self.score_A), 4 * self.top_QH.shape[1]
        return [query, gates, len(self.top_QH) - query - gates]


class Layer(NamedTuple):
    """Weights and dropout that one LSTM cell of the stack has to itself."""

    input_GH: Maybe  # None for the first cell, which reads [word; context]
    input_bias_G: Maybe
    recurrent_GH: Maybe  # None for the top cell, whose product is one of `top_QH`
    recurrent_bias_G: Maybe
    kept_MH: Maybe  # dropout of what it reads: 0 or 1 / (1 - p); None where there is none


class Inputs(NamedTuple):
    """All that `unroll` reads: the words' share of the first cell's gates, the states before, the weights."""

    word_gates_MG: Tensor  # one step after another
    hidden_LNH: Tensor
    cell_LNH: Tensor
    attending: Attending
    layers: list[Layer]


class Attended(NamedTuple):
    """Attention of one step: what its softmax came from, its weights and its context."""

    squashed_BKPA: Tensor  # sigmoid(2 (projected + query)); the attention's tanh is twice this, less 1
    attention_BKP: Tensor
    context_BKX: Tensor  # before the gate


class Step(NamedTuple):
    """What the gradient of one step needs; of the states, those before it."""

    attended: Attended
    gate_NX: Maybe
    read_NX: Tensor  # the context, after the gate
    below: list[Maybe]  # what each cell reads of the one below, after dropout
    hidden: list[Tensor]
    cells: list[CellMemory]


def unroll(inputs: Inputs, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Run all steps; return the top hidden states (M, H), the attention (M, P) and the context read (M, X).

    Step t has the first `sizes[t]` of the N captions, never more than the step before, and all captions of an image or
    none. The last result is what the first cell read of the image; it is empty where there is no `context_GX`.
    """
    flat, spec = tree_flatten(inputs)
    return _Unroll.apply(list(sizes), spec, *flat)


def attend(weights: Attending, twice_projected_BPA: Tensor, query_NA: Tensor) -> Attended:
    """Attend additively for all captions, by the scores twice_score . sigmoid(2 (projected + query))."""
    twice_score_A = 2 * weights.score_A
    values_BPX = weights.values_BPX
    query_BK1A = (2 * query_NA).view(len(values_BPX), -1, 1, query_NA.shape[-1])
    squashed_BKPA = (twice_projected_BPA[:, None] + query_BK1A).sigmoid_()
    # Softmax does not see the constant, which takes out the scores' mean before they are rounded.
    centre = -twice_score_A.sum(0, keepdim=True) / 2
    scores_BKP = F.linear(squashed_BKPA, twice_score_A[None], centre).squeeze(-1)
    attention_BKP = scores_BKP.to(exact_dtype(scores_BKP.dtype)).softmax(-1)
    return Attended(squashed_BKPA, attention_BKP, torch.bmm(attention_BKP.to(values_BPX.dtype), values_BPX))


def attend_backward(
    weights: Attending, attended: Attended, d_context_BKX: Tensor, d_attention_BKP: Maybe
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the query (N, A), of the projected cells but for the factor 4 score_A, and of half the score."""
    squashed_BKPA, attention_BKP, _ = attended
    arrived_BKP = torch.bmm(d_context_BKX, weights.values_BPX.transpose(1, 2)).to(attention_BKP.dtype)
    if d_attention_BKP is not None:
        arrived_BKP = arrived_BKP + d_attention_BKP
    d_scores_BKP = attention_BKP * (arrived_BKP - (attention_BKP * arrived_BKP).sum(-1, keepdim=True))
    d_scores_BKP = d_scores_BKP.to(squashed_BKPA.dtype)
    slope_BKPA = torch.ops.aten.sigmoid_backward(d_scores_BKP.unsqueeze(-1).expand_as(squashed_BKPA), squashed_BKPA)
    d_query_NA = slope_BKPA.sum(2).flatten(0, 1) * (4 * weights.score_A)
    half_d_score_A = torch.mv(squashed_BKPA.flatten(0, 2).t(), d_scores_BKP.flatten())
    return d_query_NA, slope_BKPA.sum(1), half_d_score_A


def run_step(
    weights: Attending,
    twice_projected_BPA: Tensor,
    layers: list[Layer],
    rows: slice,
    gates_NG: Tensor,
    hidden: list[Tensor],
    cell: list[Tensor],
) -> Step:
    """Take the step of these rows, given the words' share of the first cell's gates; the states in the lists change."""
    before, below, cells = list(hidden), [], []
    products_NQ = product(hidden[-1], weights.top_QH, weights.top_bias_Q)
    query_NA, top_recurrent_NG, gate_NX = products_NQ.split(weights.widths, dim=-1)
    attended = attend(weights, twice_projected_BPA, query_NA)
    read_NX = attended.context_BKX.flatten(0, 1)
    gate_NX = gate_NX.sigmoid() if weights.widths[-1] else None
    if gate_NX is not None:
        read_NX = read_NX * gate_NX
    gates_NG = gates_NG + (read_NX if weights.context_GX is None else product(read_NX, weights.context_GX))
    for index, layer in enumerate(layers):
        read_NH = None
        if layer.input_GH is not None:
            read_NH = _kept(hidden[index - 1], layer, rows)
            gates_NG = product(read_NH, layer.input_GH, layer.input_bias_G)
        recurrent_NG = top_recurrent_NG
        if layer.recurrent_GH is not None:
            recurrent_NG = product(before[index], layer.recurrent_GH, layer.recurrent_bias_G)
        hidden[index], cell[index], memory = lstm_cell(gates_NG + recurrent_NG, cell[index])
        below.append(read_NH)
        cells.append(memory)
    return Step(attended, gate_NX, read_NX, below, before, cells)


def _kept(below_NH: Tensor, layer: Layer, rows: slice) -> Tensor:
    return below_NH if layer.kept_MH is None else (below_NH * layer.kept_MH[rows]).to(below_NH.dtype)


class StepGradient(NamedTuple):
    """Gradients that one step leaves for the products over all steps, beside those of the states."""

    gates: list[Tensor]  # of each layer
    context_BKX: Tensor
    half_score_A: Tensor


def step_backward(
    weights: Attending,
    layers: list[Layer],
    rows: slice,
    step: Step,
    d_hidden: list[Tensor],
    d_cell: list[Tensor],
    d_read_NX: Maybe,
    d_attention_BKP: Maybe,
    d_products_NQ: Tensor,
    slope_BPA: Tensor,
) -> StepGradient:
    """Go back over one step: in the lists, the gradients of the states after it become those of the states before.

    That of the three products of the top hidden state is written into `d_products_NQ`; that of the projected cells, but
    for the factor 4 score_A, is added to `slope_BPA`.
    """
    gates: list[Tensor] = []
    for index in reversed(range(len(layers))):
        layer = layers[index]
        d_gates_NG, d_cell[index] = lstm_cell_backward(step.cells[index], d_hidden[index], d_cell[index])
        gates.insert(0, d_gates_NG)
        if layer.recurrent_GH is not None:
            d_hidden[index] = product(d_gates_NG, layer.recurrent_GH.t())
        if layer.input_GH is not None:
            d_hidden[index - 1] = d_hidden[index - 1] + _kept(product(d_gates_NG, layer.input_GH.t()), layer, rows)
    through_NX = gates[0] if weights.context_GX is None else product(gates[0], weights.context_GX.t())
    if d_read_NX is not None:
        through_NX = through_NX + d_read_NX
    products = [gates[-1]]
    context_BKX = step.attended.context_BKX
    if step.gate_NX is not None:
        d_gate_NX = through_NX * context_BKX.flatten(0, 1)
        products.append(torch.ops.aten.sigmoid_backward(d_gate_NX, step.gate_NX))
        through_NX = through_NX * step.gate_NX
    d_context_BKX = through_NX.view_as(context_BKX)
    attended = weights, step.attended, d_context_BKX, d_attention_BKP
    d_query_NA, d_slope_BPA, half_d_score_A = attend_backward(*attended)
    slope_BPA += d_slope_BPA
    torch.cat([d_query_NA, *products], dim=-1, out=d_products_NQ)
    d_hidden[-1] = product(d_products_NQ, weights.top_QH.t())
    return StepGradient(gates, d_context_BKX, half_d_score_A)


class _Unroll(torch.autograd.Function):
    """`unroll` for autograd: of the leaves of its `Inputs`, and of the tree that they were leaves of."""

    @staticmethod
    def forward(ctx: Any, sizes: list[int], spec: TreeSpec, *flat: Maybe) -> tuple[Tensor, Tensor, Tensor]:
        word_gates_MG, hidden_LNH, cell_LNH, weights, layers = tree_unflatten(flat, spec)
        hidden, cell = list(hidden_LNH.unbind()), list(cell_LNH.unbind())
        twice_projected_BPA = 2 * weights.projected_BPA
        steps, tops = [], []
        for size, rows in zip(sizes, _rows(sizes), strict=True):
            hidden, cell = [x[:size] for x in hidden], [x[:size] for x in cell]
            seen = _first(weights, size, sizes[0])
            twice_seen_BPA = twice_projected_BPA[: len(seen.values_BPX)]
            steps.append(run_step(seen, twice_seen_BPA, layers, rows, word_gates_MG[rows], hidden, cell))
            tops.append(hidden[-1])
        saved, ctx.saved_spec = tree_flatten((weights, layers, steps))
        ctx.sizes, ctx.spec = sizes, spec
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        attention_MP = torch.cat([step.attended.attention_BKP.flatten(0, 1) for step in steps])
        read = [step.read_NX for step in steps if weights.context_GX is not None]
        return torch.cat(tops), attention_MP, torch.cat(read) if read else tops[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, d_hidden_MH: Maybe, d_attention_MP: Maybe, d_read_MX: Maybe) -> tuple[Maybe, ...]:
        weights, layers, steps = tree_unflatten(ctx.saved_tensors, ctx.saved_spec)
        wanted: Inputs = tree_unflatten(ctx.needs_input_grad[2:], ctx.spec)
        d_hidden = [torch.zeros_like(hidden_NH) for hidden_NH in steps[-1].hidden]
        d_cell = [torch.zeros_like(memory.cell_NH) for memory in steps[-1].cells]
        gradients: list[StepGradient] = []
        # One buffer: to join the steps afterwards would copy the largest of all gradients.
        products_MQ = d_hidden[-1].new_empty(sum(ctx.sizes), len(weights.top_QH))
        slope_BPA = torch.zeros_like(weights.projected_BPA)
        for size, rows, step in reversed(list(zip(ctx.sizes, _rows(ctx.sizes), steps, strict=True))):
            d_hidden, d_cell = [longer(x, size) for x in d_hidden], [longer(x, size) for x in d_cell]
            if d_hidden_MH is not None:
                d_hidden[-1] = d_hidden[-1] + d_hidden_MH[rows]
            d_read_NX = None if d_read_MX is None or weights.context_GX is None else d_read_MX[rows]
            attention_BKP = step.attended.attention_BKP
            d_attention_BKP = None if d_attention_MP is None else d_attention_MP[rows].reshape(attention_BKP.shape)
            arrived = (d_hidden, d_cell, d_read_NX, d_attention_BKP)
            seen = _first(weights, size, ctx.sizes[0])
            written = products_MQ[rows], slope_BPA[: len(seen.projected_BPA)]
            gradients.insert(0, step_backward(seen, layers, rows, step, *arrived, *written))
        gates_MG = [torch.cat([gradient.gates[index] for gradient in gradients]) for index in range(len(layers) - 1)]
        gates_MG.append(products_MQ.split(weights.widths, dim=-1)[1])
        values = bool(wanted.attending.values_BPX)
        d_attending = _attending_gradient(weights, steps, gradients, products_MQ, gates_MG[0], slope_BPA, values)
        d_layers = [_layer_gradient(layer, index, steps, gates_MG[index]) for index, layer in enumerate(layers)]
        d_inputs = Inputs(gates_MG[0], torch.stack(d_hidden), torch.stack(d_cell), d_attending, d_layers)
        return None, None, *tree_leaves(d_inputs)


def _rows(sizes: list[int]) -> list[slice]:
    """Rows of each step among those of all."""
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _first(weights: Attending, captions: int, of: int) -> Attending:
    """Only the first of the images: those of so many captions."""
    images = len(weights.values_BPX) * captions // of
    return weights._replace(values_BPX=weights.values_BPX[:images], projected_BPA=weights.projected_BPA[:images])


def _attending_gradient(
    weights: Attending,
    steps: list[Step],
    gradients: list[StepGradient],
    products_MQ: Tensor,
    gates_MG: Tensor,
    slope_BPA: Tensor,
    values: bool,
) -> Attending:
    """Gradient of `Attending` over all steps at once; the values' own share only where it is asked for."""
    d_values_BPX = d_context_GX = None
    if values:
        images = len(weights.values_BPX)
        attention_BMP = torch.cat([longer(step.attended.attention_BKP, images) for step in steps], dim=1)
        d_context_BMX = torch.cat([longer(gradient.context_BKX, images) for gradient in gradients], dim=1)
        d_values_BPX = attention_BMP.transpose(1, 2).to(d_context_BMX.dtype) @ d_context_BMX
    if weights.context_GX is not None:
        d_context_GX = weight_gradient(gates_MG, torch.cat([step.read_NX for step in steps]))
    return Attending(
        d_values_BPX,  # type: ignore[arg-type]
        slope_BPA * (4 * weights.score_A),
        2 * sum(gradient.half_score_A for gradient in gradients),  # type: ignore[arg-type]
        torch.zeros_like(weights.score_bias_1),
        d_context_GX,
        weight_gradient(products_MQ, torch.cat([step.hidden[-1] for step in steps])),
        products_MQ.sum(0),
    )


def _layer_gradient(layer: Layer, index: int, steps: list[Step], gates_MG: Tensor) -> Layer:
    d_input_GH = d_recurrent_GH = d_input_bias_G = d_recurrent_bias_G = None
    if layer.input_GH is not None:
        d_input_GH = weight_gradient(gates_MG, torch.cat([step.below[index] for step in steps]))  # type: ignore[misc]
        d_input_bias_G = gates_MG.sum(0)
    if layer.recurrent_GH is not None:
        d_recurrent_GH = weight_gradient(gates_MG, torch.cat([step.hidden[index] for step in steps]))
        d_recurrent_bias_G = gates_MG.sum(0)
    return Layer(d_input_GH, d_input_bias_G, d_recurrent_GH, d_recurrent_bias_G, None)
