"""Cross-entropy of rows of logits, which become their gradient: one launch.

Dimensions: N rows, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from imgcap.models.kernels.gpu import kernels
from imgcap.models.kernels.gpu.launch import block, launch


class Rows(NamedTuple):
    """What each row comes to; where the target is padding, zero, and so many words ahead that it is never right."""

    cross_entropy_N: Tensor  # in nats, float32
    uniform_N: Tensor  # the mean over all words in the target's place, float32
    ahead_N: Tensor  # int32: how many words are likelier; of equal logits the earlier word is


def cross_entropy(logits_NV: Tensor, targets_N: Tensor, smoothing: float, pad: int, differentiate: bool) -> Rows:
    """Look at each row; with `differentiate` the dense logits become the gradient of the smoothed cross-entropy."""
    assert logits_NV.is_contiguous() and targets_N.is_contiguous()
    cross_entropy_N = torch.empty(len(targets_N), dtype=torch.float32, device=targets_N.device)
    rows = Rows(cross_entropy_N, torch.empty_like(cross_entropy_N), torch.empty_like(targets_N, dtype=torch.int32))
    vocabulary = logits_NV.shape[-1]
    launch(
        kernels.cross_entropy,
        (len(logits_NV),),
        *(logits_NV, targets_N, *rows, float(smoothing), pad, vocabulary),
        DIFFERENTIATE=differentiate,
        BLOCK_V=block(vocabulary, 16, 2048),
    )
    return rows
