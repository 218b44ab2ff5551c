"""Steps of captions that predict a word, as rows of one matrix, for what is computed of each by itself.

On a CPU, in training, those behind a caption's end are left out: in a batch of captions of all lengths they are half of
all. A GPU keeps them: it would wait for their number, and a step that is captured has shapes that stay.

Dimensions: B images, K captions an image, N = BK captions, T steps, M rows, R any width.
"""

import torch
from torch import Tensor

from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.types import PAD


def keeps_all_steps(x: Tensor) -> bool:
    """Whether padding is computed too: on a GPU, in a compiled step, and where no gradient repays the sorting."""
    return x.device.type != "cpu" or fused(x) or torch.compiler.is_compiling() or not torch.is_grad_enabled()


class Rows:
    """Rows of all steps, caption after caption."""

    def __init__(self, targets_BKT: Tensor, whole: bool):
        self._shape_BKT = targets_BKT.shape
        self._place_M = None if whole else (targets_BKT != PAD).flatten().nonzero().squeeze(1)

    def pick(self, x_BKTR: Tensor) -> Tensor:
        """Rows of what belongs to all steps, (M, R), or (M,) of (B, K, T)."""
        x_SR = x_BKTR.flatten(0, 2)
        return x_SR if self._place_M is None else x_SR.index_select(0, self._place_M)

    def spread(self, x_MR: Tensor) -> Tensor:
        """Put rows where they belong among all steps: (B, K, T, R), zero where a step was left out."""
        if self._place_M is None:
            return x_MR.view(*self._shape_BKT, -1)
        x_SR = x_MR.new_zeros(self._shape_BKT.numel(), x_MR.shape[-1])
        return x_SR.index_copy(0, self._place_M, x_MR).view(*self._shape_BKT, -1)


class RowsByStep(Rows):
    """Rows of all steps, step after step, as a recurrence takes them: step t has the first `sizes[t]` captions.

    Where steps are left out, the longest captions come first, and each has its own copy of its image's cells.
    """

    def __init__(self, targets_BKT: Tensor, whole: bool):
        super().__init__(targets_BKT, whole=True)
        images, captions, steps = targets_BKT.shape
        self.sizes = [images * captions] * steps
        self._caption_N: Tensor | None = None
        if not whole:
            step_T = torch.arange(steps)
            length_N = torch.where(targets_BKT != PAD, step_T + 1, 1).amax(-1).flatten()
            self._caption_N = length_N.argsort(descending=True, stable=True)
            goes_on_TN = step_T[:, None] < length_N[self._caption_N]
            self._place_M = (self._caption_N * steps + step_T[:, None])[goes_on_TN]
            self.sizes = [size for size in goes_on_TN.sum(1).tolist() if size]

    def images(self, x_BPR: Tensor) -> Tensor:
        """What belongs to an image, for the captions in their order: of each image once, if nothing is left out."""
        return x_BPR if self._caption_N is None else x_BPR.index_select(0, self._caption_N // self._shape_BKT[1])

    def captions(self, x_LBKR: Tensor) -> Tensor:
        """What belongs to a caption, in their order: (L, N, R)."""
        x_LNR = x_LBKR.flatten(1, 2)
        return x_LNR if self._caption_N is None else x_LNR.index_select(1, self._caption_N)

    def pick(self, x_BKTR: Tensor) -> Tensor:
        return super().pick(x_BKTR) if self._caption_N is not None else x_BKTR.movedim(2, 0).flatten(0, 2)

    def spread(self, x_MR: Tensor) -> Tensor:
        if self._caption_N is not None:
            return super().spread(x_MR)
        images, captions, steps = self._shape_BKT
        return x_MR.view(steps, images, captions, -1).permute(1, 2, 0, 3)
