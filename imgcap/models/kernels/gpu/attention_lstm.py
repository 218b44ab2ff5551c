"""`imgcap.models.kernels.attention_lstm` for a GPU, where what costs is the number of launches.

It computes the same, in the same order, and its terms are the same; read that file first. A step takes five launches,
and so does its gradient; whatever can wait for the end is one call over all steps. What the steps leave lies in buffers
of all steps, so that nothing is joined afterwards, and nothing of the size of all pairs of cells and queries is kept.

Dimensions: as there, and S = T + 1 states, the first of which is what the captions begin with.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from imgcap.models.kernels.attention_lstm import Attending, Inputs, Layer
from imgcap.models.kernels.gpu.attention import Cells, Gradients, attend, attend_backward, cells_backward
from imgcap.models.kernels.gpu.cell import Dropped, NewState, lstm_cell, lstm_cell_backward
from imgcap.models.kernels.linear import weight_gradient

Maybe = Tensor | None


class Memory(NamedTuple):
    """What all steps leave: their results, and what the gradient needs."""

    products_TNQ: Tensor  # of the top layer's last hidden state: query, recurrence, gate
    attention_TBKP: Tensor  # float32
    context_TNX: Tensor
    read_TNX: Tensor  # the context after the gate; without one, the context itself
    below_TNH: list[Maybe]  # what each layer read of the one below, where dropout stood between
    gates_TNG: list[Tensor]  # of each layer, after sigmoid and tanh
    hidden_SNH: list[Tensor]
    cell_SNH: list[Tensor]  # float32

    def reads(self, layer: int) -> Tensor:
        """What a layer read of the one below in each step (T, N, H)."""
        below_TNH = self.below_TNH[layer]
        return self.hidden_SNH[layer - 1][1:] if below_TNH is None else below_TNH


def unroll(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Run all steps with all captions; return what `imgcap.models.kernels.attention_lstm.unroll` does."""
    flat, spec = tree_flatten(inputs)
    return _Unroll.apply(spec, *flat)


def _empty_memory(inputs: Inputs) -> Memory:
    word_gates_MG, hidden_LNH, cell_LNH, weights, layers = inputs
    (_, N, H), (images, P, X), new = hidden_LNH.shape, weights.values_BPX.shape, word_gates_MG.new_empty
    T, G = len(word_gates_MG) // N, 4 * H
    context_TNX = new(T, N, X)
    return Memory(
        products_TNQ=new(T, N, len(weights.top_QH)),
        attention_TBKP=new(T, images, N // images, P, dtype=torch.float32),
        context_TNX=context_TNX,
        read_TNX=new(T, N, X) if weights.widths[-1] else context_TNX,
        below_TNH=[None if layer.kept_MH is None else new(T, N, H) for layer in layers],
        gates_TNG=[new(T, N, G) for _ in layers],
        hidden_SNH=[_beginning_with(hidden_NH, T) for hidden_NH in hidden_LNH.unbind()],
        cell_SNH=[_beginning_with(cell_NH, T) for cell_NH in cell_LNH.unbind()],
    )


def _beginning_with(state_NH: Tensor, steps: int) -> Tensor:
    states_SNH = state_NH.new_empty(steps + 1, *state_NH.shape)
    states_SNH[0].copy_(state_NH)
    return states_SNH


class Scratch(NamedTuple):
    """Gates on their way from a product to the cell, which reads them at once."""

    context_NG: Tensor
    input_NG: Tensor
    recurrent_NG: Tensor


def run_step(inputs: Inputs, cells: Cells, memory: Memory, scratch: Scratch, t: int) -> None:
    """Take step t, from the states of index t to those of t + 1."""
    weights, layers = inputs.attending, inputs.layers
    products_NQ = memory.products_TNQ[t]
    torch.addmm(weights.top_bias_Q, memory.hidden_SNH[-1][t], weights.top_QH.t(), out=products_NQ)
    query_NA, top_recurrent_NG, gate_NX = products_NQ.split(weights.widths, dim=-1)
    read_NX = memory.read_TNX[t]
    gate = gate_NX if weights.widths[-1] else None
    attend(cells, query_NA, gate, memory.attention_TBKP[t], memory.context_TNX[t], read_NX)
    through_NG = read_NX
    if weights.context_GX is not None:
        through_NG = torch.mm(read_NX, weights.context_GX.t(), out=scratch.context_NG)
    for index, layer in enumerate(layers):
        summands = [_of_step(inputs.word_gates_MG, memory, t), through_NG]
        if layer.input_GH is not None and layer.input_bias_G is not None:
            read_NH = memory.reads(index)[t]
            summands = [torch.addmm(layer.input_bias_G, read_NH, layer.input_GH.t(), out=scratch.input_NG)]
        recurrent_NG = top_recurrent_NG
        if layer.recurrent_GH is not None and layer.recurrent_bias_G is not None:
            before_NH, bias_G = memory.hidden_SNH[index][t], layer.recurrent_bias_G
            recurrent_NG = torch.addmm(bias_G, before_NH, layer.recurrent_GH.t(), out=scratch.recurrent_NG)
        new = _new_state(memory, index, t)
        lstm_cell([*summands, recurrent_NG], memory.cell_SNH[index][t], new, _dropped(layers, memory, index + 1, t))


def _new_state(memory: Memory, index: int, t: int) -> NewState:
    return NewState(memory.hidden_SNH[index][t + 1], memory.cell_SNH[index][t + 1], memory.gates_TNG[index][t])


def _dropped(layers: list[Layer], memory: Memory, above: int, t: int) -> Dropped | None:
    """Dropout of what the layer above reads, where there is one that drops."""
    below_TNH = memory.below_TNH[above] if above < len(layers) else None
    kept_MH = None if below_TNH is None else layers[above].kept_MH
    return None if below_TNH is None or kept_MH is None else Dropped(_of_step(kept_MH, memory, t), below_TNH[t])


def _of_step(x_MR: Tensor, memory: Memory, t: int) -> Tensor:
    rows = memory.products_TNQ.shape[1]
    return x_MR[t * rows : (t + 1) * rows]


class StateGradient(NamedTuple):
    """Gradients of the states after a step, which become those before it, and of what each layer gives to the next."""

    hidden_LNH: Tensor
    cell_LNH: Tensor
    above_LNH: Tensor  # what the layer above gives back to each; the top layer's is given by the loss
    through_NX: Tensor


class StepGradients(NamedTuple):
    """Gradients that all steps leave for the products over all of them."""

    products_TNQ: Tensor
    gates_TNG: list[Tensor]  # of each layer; the top one's are columns of the products'
    context_BTKX: Maybe  # None where the values learn nothing
    scores_TNP: Tensor  # float32


def step_backward(
    weights: Attending,
    layers: list[Layer],
    cells: Cells,
    memory: Memory,
    t: int,
    state: StateGradient,
    given: tuple[Maybe, Maybe, Maybe],
    gradients: StepGradients,
) -> None:
    """Go back over step t, given the gradients of its top hidden state, of its attention and of the context read."""
    d_top_NH, d_attention_NP, d_read_NX = given
    for index in reversed(range(len(layers))):
        layer, top = layers[index], index == len(layers) - 1
        d_gates_NG = gradients.gates_TNG[index][t]
        kept_MH = None if top else layers[index + 1].kept_MH
        lstm_cell_backward(
            _new_state(memory, index, t),
            memory.cell_SNH[index][t],
            state.hidden_LNH[index],
            d_top_NH if top else state.above_LNH[index],
            state.cell_LNH[index],
            d_gates_NG,
            None if kept_MH is None else _of_step(kept_MH, memory, t),
        )
        if layer.recurrent_GH is not None:
            torch.mm(d_gates_NG, layer.recurrent_GH, out=state.hidden_LNH[index])
        if layer.input_GH is not None:
            torch.mm(d_gates_NG, layer.input_GH, out=state.above_LNH[index - 1])
    through_NX = gradients.gates_TNG[0][t]
    if weights.context_GX is not None:
        through_NX = torch.mm(through_NX, weights.context_GX, out=state.through_NX)
    query_NA, _, gate_NX = memory.products_TNQ[t].split(weights.widths, dim=-1)
    d_products_NQ = gradients.products_TNQ[t]
    d_query_NA, _, d_gate_NX = d_products_NQ.split(weights.widths, dim=-1)
    d_context_BKX = None if gradients.context_BTKX is None else gradients.context_BTKX[:, t]
    gate, d_gate = (gate_NX, d_gate_NX) if weights.widths[-1] else (None, None)
    d = Gradients(d_query_NA, d_gate, d_context_BKX, gradients.scores_TNP[t])
    asked = (cells, query_NA, gate, memory.attention_TBKP[t], memory.context_TNX[t])
    attend_backward(*asked, through_NX, d_read_NX, d_attention_NP, d)
    torch.mm(d_products_NQ, weights.top_QH, out=state.hidden_LNH[-1])


class _Unroll(torch.autograd.Function):
    """`unroll` for autograd: of the leaves of its `Inputs`, and of the tree that they were leaves of."""

    @staticmethod
    def forward(ctx: Any, spec: TreeSpec, *flat: Maybe) -> tuple[Tensor, Tensor, Tensor]:
        inputs: Inputs = tree_unflatten(flat, spec)
        cells, memory = _cells(inputs.attending), _empty_memory(inputs)
        scratch = Scratch(*(torch.empty_like(memory.gates_TNG[0][0]) for _ in Scratch._fields))
        for t in range(len(memory.products_TNQ)):
            run_step(inputs, cells, memory, scratch, t)
        saved, ctx.saved_spec = tree_flatten((inputs.attending, inputs.layers, memory))
        ctx.spec = spec
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        read_MX = memory.read_TNX.new_empty(0)
        if inputs.attending.context_GX is not None:
            read_MX = memory.read_TNX.flatten(0, 1)
        return memory.hidden_SNH[-1][1:].flatten(0, 1), memory.attention_TBKP.flatten(0, 2), read_MX

    @staticmethod
    def backward(ctx: Any, d_hidden_MH: Maybe, d_attention_MP: Maybe, d_read_MX: Maybe) -> tuple[Maybe, ...]:
        weights, layers, memory = tree_unflatten(ctx.saved_tensors, ctx.saved_spec)
        wanted: Inputs = tree_unflatten(ctx.needs_input_grad[1:], ctx.spec)
        cells = _cells(weights)
        if weights.context_GX is None:
            d_read_MX = None
        hidden_LNH, steps = torch.stack([hidden_SNH[0] for hidden_SNH in memory.hidden_SNH]), len(memory.products_TNQ)
        # Over all steps at once: autograd may give what is expanded or permuted.
        given = [
            None if d_x is None else d_x.contiguous().unflatten(0, (steps, -1))
            for d_x in (d_hidden_MH, d_attention_MP, d_read_MX)
        ]
        state = StateGradient(
            torch.zeros_like(hidden_LNH),
            torch.zeros_like(hidden_LNH, dtype=memory.cell_SNH[0].dtype),
            torch.empty_like(hidden_LNH),
            torch.empty_like(memory.context_TNX[0]),
        )
        gradients = _empty_gradients(weights, memory, values=bool(wanted.attending.values_BPX))
        for t in reversed(range(steps)):
            of_step = tuple(None if d_x is None else d_x[t] for d_x in given)
            step_backward(weights, layers, cells, memory, t, state, of_step, gradients)  # type: ignore[arg-type]
        d_attending = _attending_gradient(weights, cells, memory, gradients)
        d_layers = [_layer_gradient(layer, index, memory, gradients) for index, layer in enumerate(layers)]
        d_inputs = Inputs(gradients.gates_TNG[0].flatten(0, 1), state.hidden_LNH, state.cell_LNH, d_attending, d_layers)
        return None, *tree_leaves(d_inputs)


def _cells(weights: Attending) -> Cells:
    return Cells(weights.values_BPX.contiguous(), weights.projected_BPA.contiguous(), weights.score_A.contiguous())


def _empty_gradients(weights: Attending, memory: Memory, values: bool) -> StepGradients:
    d_products_TNQ = torch.empty_like(memory.products_TNQ)
    (T, images, K, P), X = memory.attention_TBKP.shape, memory.context_TNX.shape[-1]
    gates_TNG = [torch.empty_like(gates_TNG) for gates_TNG in memory.gates_TNG[:-1]]
    return StepGradients(
        products_TNQ=d_products_TNQ,
        gates_TNG=[*gates_TNG, d_products_TNQ.split(weights.widths, dim=-1)[1]],
        context_BTKX=memory.context_TNX.new_empty(images, T, K, X) if values else None,
        scores_TNP=memory.attention_TBKP.new_empty(T, images * K, P),
    )


def _attending_gradient(weights: Attending, cells: Cells, memory: Memory, gradients: StepGradients) -> Attending:
    """Gradient of `Attending` over all steps at once."""
    d_values_BPX = d_context_GX = None
    if gradients.context_BTKX is not None:
        attention_BPM = memory.attention_TBKP.permute(1, 3, 0, 2).flatten(2)
        d_values_BPX = attention_BPM.to(gradients.context_BTKX.dtype) @ gradients.context_BTKX.flatten(1, 2)
    if weights.context_GX is not None:
        d_context_GX = weight_gradient(gradients.gates_TNG[0].flatten(0, 1), memory.read_TNX.flatten(0, 1))
    query_TNA = memory.products_TNQ[..., : weights.widths[0]]
    d_projected_BPA, d_score_A = cells_backward(cells, query_TNA, gradients.scores_TNP)
    products_MQ = gradients.products_TNQ.flatten(0, 1)
    return Attending(
        d_values_BPX,  # type: ignore[arg-type]
        d_projected_BPA,
        d_score_A.to(weights.score_A.dtype),
        torch.zeros_like(weights.score_bias_1),
        d_context_GX,
        weight_gradient(products_MQ, memory.hidden_SNH[-1][:-1].flatten(0, 1)),
        products_MQ.sum(0),
    )


def _layer_gradient(layer: Layer, index: int, memory: Memory, gradients: StepGradients) -> Layer:
    d_input_GH = d_recurrent_GH = d_input_bias_G = d_recurrent_bias_G = None
    gates_MG = gradients.gates_TNG[index].flatten(0, 1)
    if layer.input_GH is not None:
        d_input_GH, d_input_bias_G = weight_gradient(gates_MG, memory.reads(index).flatten(0, 1)), gates_MG.sum(0)
    if layer.recurrent_GH is not None:
        d_recurrent_GH = weight_gradient(gates_MG, memory.hidden_SNH[index][:-1].flatten(0, 1))
        d_recurrent_bias_G = gates_MG.sum(0)
    return Layer(d_input_GH, d_input_bias_G, d_recurrent_GH, d_recurrent_bias_G, None)
