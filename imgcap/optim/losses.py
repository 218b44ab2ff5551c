"""What training minimises. Everything is a sum, so that ranks and micro-batches add up.

Dimensions: B images, K captions an image, T tokens, V vocabulary, P grid cells. Logits and attention have
T - 1 steps: step t predicts token t + 1.
"""

from typing import Any, NamedTuple

import torch

from imgcap.types import PAD

_BLOCK = {True: 1 << 18, False: 1 << 24}  # logits looked at together on a CPU, where they fit its cache, and elsewhere


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
    total, cross_entropy = _CrossEntropy.apply(logits_BKTV.flatten(0, 2), targets_BKT.flatten(), label_smoothing)
    if attention_penalty and attention_BKTP is not None:
        total = total + attention_penalty * _unevenness(attention_BKTP, real_BKT)
    return Loss(total, cross_entropy, real_BKT.sum())


class _CrossEntropy(torch.autograd.Function):
    """Sums over M target tokens, without and with smoothing, a block of rows at a time.

    Of logits in half precision no more than a block is in float32, and what it needs stays in a CPU's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_MV: torch.Tensor, targets_M: torch.Tensor, smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = _rows_of_a_block(logits_MV)
        real_M = targets_M != PAD
        log_sums, means = [], []
        for block_NV in logits_MV.split(rows):
            exact_NV = block_NV.to(torch.promote_types(block_NV.dtype, torch.float32))
            log_sums.append(exact_NV.logsumexp(-1))
            if smoothing:
                means.append(exact_NV.mean(-1))
        log_sum_M = torch.cat(log_sums)
        target_M = logits_MV.gather(-1, targets_M[:, None]).squeeze(-1)
        cross_entropy = torch.where(real_M, log_sum_M - target_M, 0.0).sum()
        total = cross_entropy.clone()
        if smoothing:
            uniform = torch.where(real_M, log_sum_M - torch.cat(means), 0.0).sum()
            total = (1 - smoothing) * cross_entropy + smoothing * uniform
        ctx.smoothing = smoothing
        ctx.save_for_backward(logits_MV, targets_M, log_sum_M)
        ctx.mark_non_differentiable(cross_entropy)
        return total, cross_entropy

    @staticmethod
    def backward(ctx: Any, d_total: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None]:
        """Of a real target: softmax, less 1 - smoothing at the target and smoothing / V everywhere."""
        logits_MV, targets_M, log_sum_M = ctx.saved_tensors
        d_logits_MV = torch.empty_like(logits_MV)
        weight_M1 = torch.where(targets_M != PAD, d_total, 0.0)[:, None]
        rows = _rows_of_a_block(logits_MV)
        tensors = (logits_MV, targets_M[:, None], log_sum_M[:, None], weight_M1, d_logits_MV)
        for logits_NV, targets_N1, log_sum_N1, weight_N1, d_logits_NV in zip(
            *(t.split(rows) for t in tensors), strict=True
        ):
            d_exact_NV = (logits_NV - log_sum_N1).exp_()
            if ctx.smoothing:
                d_exact_NV.sub_(ctx.smoothing / logits_NV.shape[-1])
            d_exact_NV.scatter_add_(-1, targets_N1, torch.full_like(log_sum_N1, ctx.smoothing - 1))
            torch.mul(d_exact_NV, weight_N1, out=d_logits_NV)
        return d_logits_MV, None, None


def _rows_of_a_block(logits_MV: torch.Tensor) -> int:
    return max(_BLOCK[logits_MV.device.type == "cpu"] // logits_MV.shape[-1], 1)


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
