"""Additive attention in a few launches, with nothing kept of the size of all pairs of cells and queries.

The tanh of a pair is computed anew wherever it is wanted: on a GPU that costs less than to read it.

Dimensions: B images, K queries an image, N = BK rows, T steps, P cells, A attention width, X width of the values,
S slices of X.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from imgcap.models.kernels.gpu import kernels
from imgcap.models.kernels.gpu.launch import block, launch, pieces, stride

Maybe = Tensor | None


class Cells(NamedTuple):
    """What is attended to, dense: values, their projection, and the score's weight. All of one dtype."""

    values_BPX: Tensor
    projected_BPA: Tensor
    score_A: Tensor


class Gradients(NamedTuple):
    """Where `attend_backward` writes: gradients of queries and gate, which may be columns; of context and scores."""

    query_NA: Tensor
    gate_NX: Maybe
    context_BKX: Maybe  # dense but for the images' distance; None: the values learn nothing
    scores_NP: Tensor  # float32


def attend(
    cells: Cells, query_NA: Tensor, gate_NX: Maybe, attention_NP: Tensor, context_NX: Tensor, read_NX: Tensor
) -> None:
    """Write attention (float32), context and, with a gate, context * sigmoid(gate). Queries may be columns."""
    images, P, A = cells.projected_BPA.shape
    rows, X = len(query_NA), cells.values_BPX.shape[-1]
    K = rows // images
    launch(
        kernels.attention_weights,
        (rows,),
        *(cells.projected_BPA, query_NA, stride(query_NA), cells.score_A, attention_NP, K, P, A),
        **_pairs(cells, 2048),
    )
    how = _products(cells, K, 1 << 14)
    launch(
        kernels.attention_context,
        (images, pieces(X, how["BLOCK_X"]), pieces(K, how["BLOCK_K"])),
        *(attention_NP, cells.values_BPX, gate_NX, 0 if gate_NX is None else stride(gate_NX), context_NX, read_NX),
        *(K, P, X),
        **how,
    )


def attend_backward(
    cells: Cells,
    query_NA: Tensor,
    gate_NX: Maybe,
    attention_NP: Tensor,
    context_NX: Tensor,
    d_read_NX: Tensor,
    also_d_read_NX: Maybe,
    d_attention_NP: Maybe,
    d: Gradients,
) -> None:
    """Go back from what was read (a sum of two gradients) and from attention to gate, context, scores and queries."""
    images, P, A = cells.projected_BPA.shape
    rows, X = len(query_NA), cells.values_BPX.shape[-1]
    K = rows // images
    how = _products(cells, K, 1 << 13)
    some_K, blocks = pieces(K, how["BLOCK_K"]), pieces(X, how["BLOCK_X"])
    # Few images would leave most of a GPU idle: then each slice of X is a program, and the next kernel adds them up,
    # as many as it holds at once beside all cells.
    most = max(4096 // block(P, 16, 1 << 30), 1) if images * some_K < 1024 else 1
    width = pieces(blocks, min(most, blocks)) * how["BLOCK_X"]
    slices = pieces(X, width)
    d_attention_SNP = torch.empty(slices, rows, P, dtype=torch.float32, device=query_NA.device)
    launch(
        kernels.attention_context_backward,
        (images, slices, some_K),
        *(d_read_NX, stride(d_read_NX), also_d_read_NX, cells.values_BPX),
        *(gate_NX, 0 if gate_NX is None else stride(gate_NX), context_NX),
        *(d.gate_NX, 0 if d.gate_NX is None else stride(d.gate_NX)),
        *(d.context_BKX, 0 if d.context_BKX is None else d.context_BKX.stride(0), d_attention_SNP),
        *(images, K, P, X, width),
        **how,
    )
    launch(
        kernels.attention_query_backward,
        (rows,),
        *(d_attention_SNP, d_attention_NP, attention_NP, cells.projected_BPA, query_NA, stride(query_NA)),
        *(cells.score_A, d.scores_NP, d.query_NA, stride(d.query_NA), rows, K, P, A, slices),
        BLOCK_S=block(slices, 1, slices * 2),
        **_pairs(cells, 4096),
    )


def cells_backward(cells: Cells, query_TNA: Tensor, d_scores_TNP: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the projected cells and of the score (float32) over all steps. Queries may be columns."""
    projected_BPA = cells.projected_BPA
    images, P, A = projected_BPA.shape
    how = _pairs(cells, 2048)
    d_projected_BPA = torch.empty_like(projected_BPA)
    d_score_BA = torch.empty(images, A, dtype=torch.float32, device=projected_BPA.device)
    steps, rows = query_TNA.shape[:2]
    launch(
        kernels.attention_cells_backward,
        (images, pieces(A, how["BLOCK_A"])),
        *(d_scores_TNP, projected_BPA, query_TNA, query_TNA.stride(0), query_TNA.stride(1), cells.score_A),
        *(d_projected_BPA, d_score_BA, steps, rows, rows // images, P, A),
        **how,
    )
    return d_projected_BPA, d_score_BA.sum(0)


def additive_attention(
    values_BPX: Tensor, projected_BPA: Tensor, query_BKA: Tensor, score_A: Tensor, score_bias_1: Tensor, gate_BKX: Maybe
) -> tuple[Tensor, Tensor]:
    """Attend additively: context_BKX, by sigmoid(gate) where there is one, and attention_BKP in float32.

    For autograd, with queries that are all known. The softmax does not see the score's bias: its gradient is zero.
    """
    return _AdditiveAttention.apply(values_BPX, projected_BPA, query_BKA, score_A, score_bias_1, gate_BKX)


class _AdditiveAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values_BPX: Tensor,
        projected_BPA: Tensor,
        query_BKA: Tensor,
        score_A: Tensor,
        score_bias_1: Tensor,
        gate_BKX: Maybe,
    ) -> tuple[Tensor, Tensor]:
        cells = Cells(values_BPX.contiguous(), projected_BPA.contiguous(), score_A.contiguous())
        query_NA, gate_NX = query_BKA.flatten(0, 1), None if gate_BKX is None else gate_BKX.flatten(0, 1)
        shape = query_BKA.shape[:2]
        attention_BKP = values_BPX.new_empty(*shape, values_BPX.shape[1], dtype=torch.float32)
        context_BKX = values_BPX.new_empty(*shape, values_BPX.shape[2])
        read_BKX = context_BKX if gate_BKX is None else torch.empty_like(context_BKX)
        attend(cells, query_NA, gate_NX, attention_BKP, context_BKX, read_BKX)
        ctx.save_for_backward(*cells, query_NA, score_bias_1, gate_NX, attention_BKP, context_BKX)
        ctx.set_materialize_grads(False)
        return read_BKX, attention_BKP

    @staticmethod
    def backward(ctx: Any, d_read_BKX: Maybe, d_attention_BKP: Maybe) -> tuple[Maybe, ...]:
        *cells_, query_NA, score_bias_1, gate_NX, attention_BKP, context_BKX = ctx.saved_tensors
        cells = Cells(*cells_)
        d_read_BKX = torch.zeros_like(context_BKX) if d_read_BKX is None else d_read_BKX.contiguous()
        d = Gradients(
            torch.empty_like(query_NA),
            None if gate_NX is None else torch.empty_like(gate_NX),
            torch.empty_like(context_BKX) if ctx.needs_input_grad[0] else None,
            torch.empty_like(attention_BKP),
        )
        if d_attention_BKP is not None:
            d_attention_BKP = d_attention_BKP.contiguous()
        asked = (cells, query_NA, gate_NX, attention_BKP, context_BKX)
        attend_backward(*asked, d_read_BKX.flatten(0, 1), None, d_attention_BKP, d)
        d_projected_BPA, d_score_A = cells_backward(cells, query_NA[None], d.scores_NP)
        d_values_BPX = None
        if d.context_BKX is not None:
            d_values_BPX = torch.bmm(attention_BKP.to(d.context_BKX.dtype).transpose(1, 2), d.context_BKX)
        shape = attention_BKP.shape[:2]
        d_gate_BKX = None if d.gate_NX is None else d.gate_NX.unflatten(0, shape)
        d_query_BKA, d_score_A = d.query_NA.unflatten(0, shape), d_score_A.to(cells.score_A.dtype)
        return d_values_BPX, d_projected_BPA, d_query_BKA, d_score_A, torch.zeros_like(score_bias_1), d_gate_BKX


def _pairs(cells: Cells, entries: int) -> dict[str, Any]:
    """How pairs are computed: a tile of all cells and some columns, of so many entries where it can be; its warps.

    In half precision the tanh may be as coarse as the numbers that it is of.
    """
    P, A = cells.projected_BPA.shape[1:]
    block_P = block(P, 16, 1 << 30)
    block_A = block(A, 8, max(entries // block_P, 8))
    exact = cells.score_A.dtype == torch.float32 or kernels.INTERPRETED or torch.version.hip is not None
    return {
        "BLOCK_P": block_P,
        "BLOCK_A": block_A,
        "APPROXIMATE": not exact,
        "warps": 4 if block_P * block_A <= 4096 else 8,
    }


def _products(cells: Cells, K: int, at_once: int) -> dict[str, Any]:
    """How products are computed, with so many bytes of values at once: 16 rows are the least that tensor cores take.

    They are not rounded to TensorFloat-32: to read the values takes longer than to multiply them.
    """
    P, X = cells.values_BPX.shape[1:]
    block_P = block(P, 16, 64)
    block_X = block(X, 16, at_once // (block_P * cells.values_BPX.element_size()))
    # Triton's interpreter multiplies bfloat16 as if they were integers.
    name = "float32" if kernels.INTERPRETED else str(cells.values_BPX.dtype).removeprefix("torch.")
    return {
        "BLOCK_K": block(K, 16, 32),
        "BLOCK_P": block_P,
        "BLOCK_X": block_X,
        "DOT": getattr(kernels.tl, name),
        "warps": 8,  # of four each thread would hold so much that half of the registers' room for others were gone
    }
