"""Additive attention (Bahdanau et al. 2015, Xu et al. 2015) over the cells of an image.

Dimensions: B images, K captions an image, P grid cells, E encoder width, H hidden width,
A attention width.
"""

import torch
import torch.nn.functional as F
from torch import nn

from imgcap.models.linear import Linear
from imgcap.models.precision import exact_dtype


class AdditiveAttention(nn.Module):
    """score(cell, state) = v . tanh(W_f cell + W_h state), softmax over the cells.

    The one layer over [cell; state] that some write is the same thing with W_f and W_h side by side.
    """

    def __init__(self, encoder_width: int, hidden_dim: int, attention_dim: int):
        super().__init__()
        self.features = Linear(encoder_width, attention_dim)
        self.query = Linear(hidden_dim, attention_dim, bias=False)
        self.score = nn.Linear(attention_dim, 1)

    def forward(
        self, features_BPE: torch.Tensor, projected_BPA: torch.Tensor, query_BKA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend with projected queries; return context_BKE and the weights attention_BKP (float32)."""
        # tanh(x) is 2 sigmoid(2x) - 1, and torch's sigmoid is several times faster on a CPU. The factors and
        # the constant go into the small operands: the large one of B K P A entries is touched three times.
        squashed_BKPA = ((2 * projected_BPA)[:, None] + (2 * query_BKA)[:, :, None]).sigmoid_()
        bias = self.score.bias - self.score.weight.sum()
        scores_BKP = F.linear(squashed_BKPA, 2 * self.score.weight, bias).squeeze(-1)
        attention_BKP = scores_BKP.to(exact_dtype(scores_BKP.dtype)).softmax(-1)
        context_BKE = torch.bmm(attention_BKP.to(features_BPE.dtype), features_BPE)
        return context_BKE, attention_BKP
