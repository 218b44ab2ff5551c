"""Attention over the cells of an image: additive (Bahdanau et al. 2015, Xu et al. 2015) or scaled dot product.

Dimensions: B images, K captions an image (or queries: all steps of all captions), P grid cells,
E encoder width, H hidden width, A attention width.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import Linear

BLOCK = {True: 1 << 20, False: 1 << 27}  # entries looked at together on a CPU, where they fit its cache, and elsewhere


class Attention(nn.Module):
    """Attention over the cells by the softmax of a score; `features` and `query` project cells and states for it."""

    def __init__(self, encoder_width: int, hidden_dim: int, attention_dim: int):
        super().__init__()
        self.features = Linear(encoder_width, attention_dim)
        self.query = Linear(hidden_dim, attention_dim, bias=False)

    def scores(self, projected_BPA: Tensor, query_BKA: Tensor) -> Tensor:
        """Score projected cells for projected queries: scores_BKP."""
        raise NotImplementedError

    def forward(
        self, features_BPE: Tensor, projected_BPA: Tensor, query_BKA: Tensor, gate_BKE: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend with projected queries; return context_BKE, scaled by sigmoid(gate), and attention_BKP (float32)."""
        scores_BKP = self.scores(projected_BPA, query_BKA)
        attention_BKP = scores_BKP.to(exact_dtype(scores_BKP.dtype)).softmax(-1)
        context_BKE = torch.bmm(attention_BKP.to(features_BPE.dtype), features_BPE)
        return context_BKE if gate_BKE is None else context_BKE * gate_BKE.sigmoid(), attention_BKP


class AdditiveAttention(Attention):
    """Additive attention (Bahdanau et al. 2015): score(cell, state) = v . tanh(W_f cell + W_h state).

    The one layer over [cell; state] that some write is the same thing with W_f and W_h side by side.
    """

    def __init__(self, encoder_width: int, hidden_dim: int, attention_dim: int):
        super().__init__(encoder_width, hidden_dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1)

    def forward(
        self, features_BPE: Tensor, projected_BPA: Tensor, query_BKA: Tensor, gate_BKE: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if not fused(query_BKA, features_BPE.shape[1]):
            return super().forward(features_BPE, projected_BPA, query_BKA, gate_BKE)
        from imgcap.models.kernels.gpu.attention import additive_attention

        score_A = self.score.weight[0].to(query_BKA.dtype)
        return additive_attention(features_BPE, projected_BPA, query_BKA, score_A, self.score.bias, gate_BKE)

    def scores(self, projected_BPA: Tensor, query_BKA: Tensor) -> Tensor:
        # tanh(x) is 2 sigmoid(2x) - 1, and torch's sigmoid is several times faster on a CPU. The factors and
        # the constant go into the small operands: the large one of B K P A entries is touched three times.
        bias = self.score.bias - self.score.weight.sum()
        weight_A, bias_1 = (2 * self.score.weight[0]).to(query_BKA.dtype), bias.to(query_BKA.dtype)
        squashed_products = _squashed_products if torch.compiler.is_compiling() else _SquashedProducts.apply
        return squashed_products(2 * projected_BPA, 2 * query_BKA, weight_A, bias_1)


def _squashed_products(x_BPA: Tensor, y_BKA: Tensor, weight_A: Tensor, bias_1: Tensor) -> Tensor:
    """Scores (B, K, P) of all pairs of cells and queries: weight . sigmoid(x + y) + bias."""
    return F.linear((x_BPA[:, None] + y_BKA[:, :, None]).sigmoid_(), weight_A[None], bias_1).squeeze(-1)


class _SquashedProducts(torch.autograd.Function):
    """`_squashed_products` in blocks: a CPU's fit its cache, and never all B K P A entries are kept for a gradient."""

    @staticmethod
    def forward(ctx: Any, x_BPA: Tensor, y_BKA: Tensor, weight_A: Tensor, bias_1: Tensor) -> Tensor:
        ctx.save_for_backward(x_BPA, y_BKA, weight_A)
        scores_BKP = y_BKA.new_empty(*y_BKA.shape[:2], x_BPA.shape[1])
        for images, queries in _blocks(x_BPA, y_BKA):
            scores_BKP[images, queries] = _squashed_products(x_BPA[images], y_BKA[images, queries], weight_A, bias_1)
        return scores_BKP

    @staticmethod
    def backward(ctx: Any, d_scores_BKP: Tensor) -> tuple[Tensor, ...]:
        x_BPA, y_BKA, weight_A = ctx.saved_tensors
        exact = exact_dtype(weight_A.dtype)
        d_x_BPA, d_y_BKA = torch.zeros_like(x_BPA, dtype=exact), torch.empty_like(y_BKA)
        d_weight_A = torch.zeros_like(weight_A, dtype=exact)
        for images, queries in _blocks(x_BPA, y_BKA):
            squashed_BKPA = (x_BPA[images, None] + y_BKA[images, queries, None]).sigmoid_()
            d_block_BKP = d_scores_BKP[images, queries]
            d_weight_A += torch.mv(squashed_BKPA.flatten(0, 2).t(), d_block_BKP.flatten())
            d_block_BKPA = d_block_BKP[..., None].expand_as(squashed_BKPA)
            slope_BKPA = torch.ops.aten.sigmoid_backward(d_block_BKPA, squashed_BKPA)
            d_x_BPA[images] += slope_BKPA.sum(1)
            d_y_BKA[images, queries] = slope_BKPA.sum(2) * weight_A
        d_bias_1 = d_scores_BKP.sum(dtype=exact).view(1).to(weight_A.dtype)
        return (d_x_BPA * weight_A).to(x_BPA.dtype), d_y_BKA, d_weight_A.to(weight_A.dtype), d_bias_1


def _blocks(x_BPA: Tensor, y_BKA: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of queries whose pairs are computed together."""
    images, queries, pairs_of_a_query = len(y_BKA), y_BKA.shape[1], x_BPA[0].numel()
    limit = BLOCK[x_BPA.device.type == "cpu"]
    of_queries = min(queries, max(1, limit // pairs_of_a_query))
    of_images = max(1, limit // (of_queries * pairs_of_a_query))
    for image in range(0, images, of_images):
        for query in range(0, queries, of_queries):
            yield slice(image, image + of_images), slice(query, query + of_queries)


class DotAttention(Attention):
    """Scaled dot-product attention (Vaswani et al. 2017): score(cell, state) = (W_f cell) . (W_h state) / sqrt(A)."""

    def scores(self, projected_BPA: Tensor, query_BKA: Tensor) -> Tensor:
        return torch.bmm(query_BKA * query_BKA.shape[-1] ** -0.5, projected_BPA.transpose(1, 2))


ATTENTION: dict[str, type[Attention]] = {"additive": AdditiveAttention, "dot": DotAttention}
