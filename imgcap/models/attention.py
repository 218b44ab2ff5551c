"""Attention over the cells of an image: additive (Bahdanau et al. 2015, Xu et al. 2015) or scaled dot product.

Dimensions: B images, K captions an image (or queries: all steps of all captions), P grid cells,
E encoder width, H hidden width, A attention width.
"""

import torch
import torch.nn.functional as F
from torch import nn

from imgcap.models.linear import Linear
from imgcap.models.precision import exact_dtype


class Attention(nn.Module):
    """Softmax of a score over the cells; `features` and `query` project cells and states for it."""

    def __init__(self, encoder_width: int, hidden_dim: int, attention_dim: int):
        super().__init__()
        self.features = Linear(encoder_width, attention_dim)
        self.query = Linear(hidden_dim, attention_dim, bias=False)

    def scores(self, projected_BPA: torch.Tensor, query_BKA: torch.Tensor) -> torch.Tensor:
        """Of projected cells and queries: scores_BKP."""
        raise NotImplementedError

    def forward(
        self, features_BPE: torch.Tensor, projected_BPA: torch.Tensor, query_BKA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend with projected queries; return context_BKE and the weights attention_BKP (float32)."""
        scores_BKP = self.scores(projected_BPA, query_BKA)
        attention_BKP = scores_BKP.to(exact_dtype(scores_BKP.dtype)).softmax(-1)
        context_BKE = torch.bmm(attention_BKP.to(features_BPE.dtype), features_BPE)
        return context_BKE, attention_BKP


class AdditiveAttention(Attention):
    """score(cell, state) = v . tanh(W_f cell + W_h state), softmax over the cells.

    The one layer over [cell; state] that some write is the same thing with W_f and W_h side by side.
    """

    def __init__(self, encoder_width: int, hidden_dim: int, attention_dim: int):
        super().__init__(encoder_width, hidden_dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1)

    def scores(self, projected_BPA: torch.Tensor, query_BKA: torch.Tensor) -> torch.Tensor:
        # tanh(x) is 2 sigmoid(2x) - 1, and torch's sigmoid is several times faster on a CPU. The factors and
        # the constant go into the small operands: the large one of B K P A entries is touched three times.
        squashed_BKPA = ((2 * projected_BPA)[:, None] + (2 * query_BKA)[:, :, None]).sigmoid_()
        bias = self.score.bias - self.score.weight.sum()
        return F.linear(squashed_BKPA, 2 * self.score.weight, bias).squeeze(-1)


class DotAttention(Attention):
    """score(cell, state) = (W_f cell) . (W_h state) / sqrt(A) (Vaswani et al. 2017)."""

    def scores(self, projected_BPA: torch.Tensor, query_BKA: torch.Tensor) -> torch.Tensor:
        return torch.bmm(query_BKA * query_BKA.shape[-1] ** -0.5, projected_BPA.transpose(1, 2))


ATTENTION: dict[str, type[Attention]] = {"additive": AdditiveAttention, "dot": DotAttention}
