"""What training minimises. Everything is a sum, so that ranks and micro-batches add up.

Dimensions: B images, K captions an image, T tokens, V vocabulary, P grid cells. Logits and attention have
T - 1 steps: step t predicts token t + 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from imgcap.types import PAD


class Loss(NamedTuple):
    """Sums over the real target tokens, 0-D. Divide by the global token count for means."""

    total: torch.Tensor  # what to minimise: smoothed cross-entropy and attention penalty
    cross_entropy: torch.Tensor  # without smoothing and penalty, in nats, to be reported
    tokens: torch.Tensor  # int64


def caption_loss(
    logits_BKTV: torch.Tensor,
    tokens_BKT: torch.Tensor,
    label_smoothing: float,
    attention_BKTP: torch.Tensor | None = None,
    attention_penalty: float = 0.0,
) -> Loss:
    """Cross-entropy of tokens 1 to T - 1, and the doubly stochastic attention of Xu et al. 2015 (equation 14).

    Smoothing spreads its share over the whole vocabulary, as `torch.nn.functional.cross_entropy` does. The
    penalty of a caption counts once for each of its tokens, so that its global mean is weighted like the rest.
    """
    targets_BKT = tokens_BKT[..., 1:]
    real_BKT = targets_BKT != PAD
    logits_BKTV = logits_BKTV.to(torch.promote_types(logits_BKTV.dtype, torch.float32))
    log_probs_BKTV = logits_BKTV.log_softmax(-1)
    cross_entropy = F.nll_loss(log_probs_BKTV.flatten(0, 2), targets_BKT.flatten(), ignore_index=PAD, reduction="sum")
    total = cross_entropy
    if label_smoothing:
        uniform = -torch.where(real_BKT, log_probs_BKTV.sum(-1), 0.0).sum() / logits_BKTV.shape[-1]
        total = (1 - label_smoothing) * cross_entropy + label_smoothing * uniform
    if attention_penalty and attention_BKTP is not None:
        total = total + attention_penalty * _unevenness(attention_BKTP, real_BKT)
    return Loss(total, cross_entropy.detach(), real_BKT.sum())


def token_accuracy(
    logits_BKTV: torch.Tensor, tokens_BKT: torch.Tensor, ranks: tuple[int, ...] = (1, 5)
) -> torch.Tensor:
    """Count the real target tokens that are among the `ranks` likeliest words; int64, one count for each rank.

    Of equal logits the earlier word goes first, as it does for `argmax`.
    """
    targets_BKT1 = tokens_BKT[..., 1:].unsqueeze(-1)
    real_BKT = targets_BKT1.squeeze(-1) != PAD
    target_logit_BKT1 = logits_BKTV.gather(-1, targets_BKT1)
    earlier_BKTV = torch.arange(logits_BKTV.shape[-1], device=logits_BKTV.device) < targets_BKT1
    ahead_BKTV = (logits_BKTV > target_logit_BKT1) | ((logits_BKTV == target_logit_BKT1) & earlier_BKTV)
    ahead_BKT = ahead_BKTV.sum(-1)
    return torch.stack([((ahead_BKT < rank) & real_BKT).sum() for rank in ranks])


def _unevenness(attention_BKTP: torch.Tensor, real_BKT: torch.Tensor) -> torch.Tensor:
    """Over the captions, tokens × mean over the cells of (1 - what a cell received in all steps)²."""
    received_BKP = torch.where(real_BKT.unsqueeze(-1), attention_BKTP, 0.0).sum(2)
    return ((1 - received_BKP).square().mean(-1) * real_BKT.sum(-1)).sum()
