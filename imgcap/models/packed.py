"""Steps of captions that predict a word, as rows of one matrix, for what is computed of each by itself.

On a CPU, in training, those behind a caption's end are left out: in a batch of captions of all lengths they are half of
all. A GPU keeps them: it would wait for their number, and a step that is captured has shapes that stay.

Dimensions: B images, K captions an image, N = BK captions, T steps, S = NT, M rows, P cells, L layers, R any width.
"""

import torch
from torch import Tensor

from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.types import PAD

MOST = 0.75  # of all steps: with more that predict a word, leaving out the others doesn't pay


def keeps_all_steps(targets_BKT: Tensor, weight: Tensor) -> bool:
    """Whether padding is computed too, by a decoder with this weight: where that is faster, and without gradients."""
    if weight.device.type != "cpu" or fused(weight) or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return True
    return int((targets_BKT != PAD).sum()) > MOST * targets_BKT.numel()


class Rows:
    """Rows of all steps, caption after caption."""

    def __init__(self, targets_BKT: Tensor, whole: bool):
        self._shape_BKT = targets_BKT.shape
        self._place_M = None if whole else self._places(targets_BKT)

    def _places(self, targets_BKT: Tensor) -> Tensor:
        """Places of the rows among the S steps of all captions."""
        return (targets_BKT != PAD).flatten().nonzero().squeeze(1)

    def pick(self, x_BKTR: Tensor) -> Tensor:
        """Rows of what belongs to all steps, (M, R), or (M,) of (B, K, T)."""
        x_SR = x_BKTR.flatten(0, 2)
        return x_SR if self._place_M is None else x_SR.index_select(0, self._place_M)

    def spread(self, x_MR: Tensor) -> Tensor:
        """Put rows where they belong among all steps: (B, K, T, R), zero where a step was left out."""
        if self._place_M is None:
            return x_MR.view(*self._shape_BKT, -1)
        x_SR = x_MR.new_zeros(self._shape_BKT.numel(), x_MR.shape[-1])
        return x_SR.index_copy_(0, self._place_M, x_MR).view(*self._shape_BKT, -1)


class RowsByStep(Rows):
    """Rows of all steps, step after step, as a recurrence takes them: step t has the first `sizes[t]` captions.

    Where steps are left out, the longest captions come first, and each has its own copy of its image's cells.
    """

    def __init__(self, targets_BKT: Tensor, whole: bool):
        images, captions, steps = targets_BKT.shape
        self.sizes = [images * captions] * steps
        self._caption_N: Tensor | None = None  # which caption comes at which place
        super().__init__(targets_BKT, whole)

    def _places(self, targets_BKT: Tensor) -> Tensor:
        steps = targets_BKT.shape[2]
        step_T = torch.arange(steps)
        length_N = torch.where(targets_BKT != PAD, step_T + 1, 1).amax(-1).flatten()
        self._caption_N = length_N.argsort(descending=True, stable=True)
        goes_on_TN = step_T[:, None] < length_N[self._caption_N]
        self.sizes = [size for size in goes_on_TN.sum(1).tolist() if size]
        return (self._caption_N * steps + step_T[:, None])[goes_on_TN]

    def images(self, x_BPR: Tensor) -> Tensor:
        """What belongs to an image, for the captions in their order: of each image once, if nothing is left out."""
        return x_BPR if self._caption_N is None else x_BPR.index_select(0, self._caption_N // self._shape_BKT[1])

    def captions(self, x_LBKR: Tensor) -> Tensor:
        """What belongs to a caption, in their order: (L, N, R)."""
        x_LNR = x_LBKR.flatten(1, 2)
        return x_LNR if self._caption_N is None else x_LNR.index_select(1, self._caption_N)

    def pick(self, x_BKTR: Tensor) -> Tensor:
        return x_BKTR.movedim(2, 0).flatten(0, 2) if self._place_M is None else super().pick(x_BKTR)

    def spread(self, x_MR: Tensor) -> Tensor:
        if self._place_M is not None:
            return super().spread(x_MR)
        images, captions, steps = self._shape_BKT
        return x_MR.view(steps, images, captions, -1).permute(1, 2, 0, 3)
