"""What training minimises. Everything is a sum, so that ranks and micro-batches add up.

Dimensions: B images, K captions an image, T tokens, V vocabulary, P grid cells, R width of what the head reads,
M rows: steps with a real target. Readouts and attention have T - 1 steps: step t predicts token t + 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import product, weight_gradient
from imgcap.models.packed import Rows
from imgcap.types import PAD

BLOCK = 1 << 24  # logits that exist at once
FUSED_BLOCK = 1 << 25  # where a kernel looks at them a row at a time, without a copy in float32
CACHED = 1 << 18  # of them, those that a CPU looks at together: they fit its cache
RANKS = (1, 5)  # a token that is among so many likeliest counts as correct


class Head(NamedTuple):
    """Weight and bias of an output layer, as of `torch.nn.Linear`."""

    weight: Tensor
    bias: Tensor


class Loss(NamedTuple):
    """Losses of a batch as sums over the real target tokens, 0-D. Divide by the global token count for means."""

    total: Tensor  # what to minimise: smoothed cross-entropy, each caption's weighted, and attention penalty
    cross_entropy: Tensor  # without smoothing and penalty, in nats, to be reported
    tokens: Tensor  # int64
    correct: Tensor  # int64, one for each of RANKS: tokens among the so many likeliest; zeros where not asked for


def caption_loss(
    readout_BKTR: Tensor,
    head: nn.Linear | Head,
    tokens_BKT: Tensor,
    label_smoothing: float,
    attention_BKTP: Tensor | None = None,
    attention_penalty: float = 0.0,
    count_correct: bool = False,
    weights_BK: Tensor | None = None,
) -> Loss:
    """Cross-entropy of tokens 1 to T - 1, and the doubly stochastic attention of Xu et al. 2015 (equation 14).

    The head turns readouts into logits, in the dtype of the readouts, a block of rows at a time. Smoothing spreads
    its share over the whole vocabulary, as `torch.nn.functional.cross_entropy` does. The penalty of a caption counts
    once for each of its tokens, so that its global mean is weighted like the rest. With `count_correct` the loss also
    counts the tokens that are among the likeliest, while it has the logits. `weights_BK` are factors on the captions'
    part of what is minimised; without them each counts once.
    """
    targets_BKT = tokens_BKT[..., 1:]
    real_BKT = targets_BKT != PAD
    readout_MR, targets_M, weights_M = _rows(readout_BKTR, targets_BKT, weights_BK)
    weight_VR, bias_V = head.weight.to(readout_MR.dtype), head.bias.to(readout_MR.dtype)
    differentiate = torch.is_grad_enabled() and (readout_MR.requires_grad or weight_VR.requires_grad)
    total, cross_entropy, correct = _LinearCrossEntropy.apply(
        readout_MR, weight_VR, bias_V, targets_M, weights_M, label_smoothing, differentiate, count_correct
    )
    if attention_penalty and attention_BKTP is not None:
        total = total + attention_penalty * _unevenness(attention_BKTP, real_BKT)
    return Loss(total, cross_entropy, real_BKT.sum(), correct)


def _rows(readout_BKTR: Tensor, targets_BKT: Tensor, weights_BK: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """One row a step of readouts, targets and weights; on a CPU of real targets: a GPU would wait for their number."""
    rows = Rows(targets_BKT, whole=targets_BKT.device.type != "cpu")
    weights_M = None if weights_BK is None else rows.pick(weights_BK[..., None].expand_as(targets_BKT))
    return rows.pick(readout_BKTR), rows.pick(targets_BKT), weights_M


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of logits = readout @ weight.t() + bias, summed over the tokens: to be minimised, and plain.

    The gradients are computed in the forward pass, while a block's logits are there, and scaled in the backward
    pass: no more than BLOCK logits exist together, and of those in half precision no more than CACHED in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        readout_MR: Tensor,
        weight_VR: Tensor,
        bias_V: Tensor,
        targets_M: Tensor,
        weights_M: Tensor | None,
        smoothing: float,
        differentiate: bool,
        count_correct: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = exact_dtype(readout_MR.dtype)
        total, cross_entropy = (torch.zeros((), dtype=exact, device=readout_MR.device) for _ in range(2))
        correct = torch.zeros(len(RANKS), dtype=torch.int64, device=readout_MR.device)
        d_readout_MR = torch.empty_like(readout_MR)
        d_weight_VR, d_bias_V = None, torch.zeros_like(bias_V, dtype=exact)
        on_gpu = fused(readout_MR)
        sums_of, at_once = (_sums_on_gpu, FUSED_BLOCK) if on_gpu else (_sums, BLOCK)
        looked_at = (CACHED if readout_MR.device.type == "cpu" and not on_gpu else at_once) // len(weight_VR)
        for rows in _blocks(len(targets_M), at_once // len(weight_VR)):
            logits_NV = product(readout_MR[rows], weight_VR, bias_V)
            for some in _blocks(len(logits_NV), looked_at):
                weights_N = None if weights_M is None else weights_M[rows][some]
                targets = targets_M[rows][some], weights_N
                sums = sums_of(logits_NV[some], *targets, smoothing, differentiate, count_correct)
                total, cross_entropy = total + sums[0], cross_entropy + sums[1]
                if sums[2] is not None:
                    correct += sums[2]
            if differentiate:
                d_readout_MR[rows] = product(logits_NV, weight_VR.t())
                d_block_VR = weight_gradient(logits_NV, readout_MR[rows])
                d_weight_VR = d_block_VR if d_weight_VR is None else d_weight_VR.to(exact) + d_block_VR
                d_bias_V += logits_NV.sum(0, dtype=exact)
        if d_weight_VR is None:
            d_weight_VR = torch.zeros_like(weight_VR)
        ctx.dtype = readout_MR.dtype
        ctx.save_for_backward(d_readout_MR, d_weight_VR, d_bias_V)
        ctx.mark_non_differentiable(cross_entropy, correct)
        return total, cross_entropy, correct

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        # In float32 at least: the factor would be rounded to a half-precision gradient's dtype.
        d_readout_MR, d_weight_VR, d_bias_V = (
            (gradient.to(d_total.dtype) * d_total).to(ctx.dtype) for gradient in ctx.saved_tensors
        )
        return d_readout_MR, d_weight_VR, d_bias_V, None, None, None, None, None


def _sums(
    logits_NV: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None,
    smoothing: float,
    differentiate: bool,
    count_correct: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum a block's cross-entropy, to be minimised and plain; count what is correct; the logits become the gradient."""
    correct = _correct(logits_NV, targets_N) if count_correct else None
    return *_cross_entropy(logits_NV, targets_N, weights_N, smoothing, differentiate), correct


def _sums_on_gpu(
    logits_NV: Tensor,
    targets_N: Tensor,
    weights_N: Tensor | None,
    smoothing: float,
    differentiate: bool,
    count_correct: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute what `_sums` does in one pass over each row of logits, and one more for the gradient."""
    from imgcap.models.kernels.gpu.cross_entropy import cross_entropy

    rows = cross_entropy(logits_NV, targets_N, smoothing, PAD, differentiate)
    plain = rows.cross_entropy_N.sum()
    total = plain if weights_N is None else rows.cross_entropy_N @ weights_N
    if smoothing:
        uniform = rows.uniform_N.sum() if weights_N is None else rows.uniform_N @ weights_N
        total = (1 - smoothing) * total + smoothing * uniform
    if differentiate and weights_N is not None:
        logits_NV.mul_(weights_N[:, None])
    correct = torch.stack([(rows.ahead_N < rank).sum() for rank in RANKS]) if count_correct else None
    return total, plain, correct


def _cross_entropy(
    logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor | None, smoothing: float, differentiate: bool
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy, weighted and smoothed, and plain; the logits become their gradient where it is asked for.

    The gradient of a real target is softmax, less 1 - smoothing at the target and smoothing / V everywhere, times its
    weight.
    """
    real_N1, targets_N1 = (targets_N != PAD)[:, None], targets_N[:, None]
    exact_NV = logits_NV.to(exact_dtype(logits_NV.dtype))
    log_sum_N1 = exact_NV.logsumexp(-1, keepdim=True)
    weights_N1 = None if weights_N is None else weights_N[:, None].to(exact_NV.dtype)
    each_N1 = torch.where(real_N1, log_sum_N1 - exact_NV.gather(-1, targets_N1), 0.0)
    cross_entropy = each_N1.sum()
    total = cross_entropy if weights_N1 is None else (each_N1 * weights_N1).sum()
    if smoothing:
        uniform_N1 = torch.where(real_N1, log_sum_N1 - exact_NV.mean(-1, keepdim=True), 0.0)
        uniform = uniform_N1.sum() if weights_N1 is None else (uniform_N1 * weights_N1).sum()
        total = (1 - smoothing) * total + smoothing * uniform
    if differentiate:
        d_exact_NV = exact_NV.sub_(log_sum_N1).exp_()
        if smoothing:
            d_exact_NV.sub_(smoothing / logits_NV.shape[-1])
        d_exact_NV.scatter_add_(-1, targets_N1, torch.full_like(log_sum_N1, smoothing - 1))
        logits_NV.copy_(d_exact_NV.mul_(real_N1 if weights_N1 is None else real_N1 * weights_N1))
    return total, cross_entropy


def _blocks(rows: int, at_once: int) -> Iterator[slice]:
    for first in range(0, rows, max(at_once, 1)):
        yield slice(first, first + max(at_once, 1))


def _correct(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Count the real targets that are among the likeliest words; of equal logits the earlier word is likelier."""
    targets_N1 = targets_N[:, None]
    target_logit_N1 = logits_NV.gather(-1, targets_N1)
    earlier_NV = torch.arange(logits_NV.shape[-1], device=logits_NV.device) < targets_N1
    ahead_NV = (logits_NV > target_logit_N1) | ((logits_NV == target_logit_N1) & earlier_NV)
    ahead_N, real_N = ahead_NV.sum(-1), targets_N != PAD
    return torch.stack([((ahead_N < rank) & real_N).sum() for rank in RANKS])


def _unevenness(attention_BKTP: Tensor, real_BKT: Tensor) -> Tensor:
    """Attention's unevenness: over captions, tokens × mean over cells of (1 - what a cell received in all steps)²."""
    received_BKP = torch.where(real_BKT.unsqueeze(-1), attention_BKTP, 0.0).sum(2)
    return ((1 - received_BKP).square().mean(-1) * real_BKT.sum(-1)).sum()
