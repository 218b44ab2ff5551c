"""What a decoder carries from one token to the next.

Dimensions: L layers, B images, K captions or W beams an image, P grid cells, D embedding width,
E encoder width, A attention width, H hidden width, G = 4H gates of an LSTM cell,
Q = A + G (+ E with a gate), several products side by side.
"""

from typing import NamedTuple

import torch

from imgcap.models.kernels.linear import linear


class Cells(NamedTuple):
    """What attention looks at: the images' cells."""

    features_BPE: torch.Tensor
    projected_BPA: torch.Tensor


class Joined(NamedTuple):
    """Weights of a decoder that attends before its recurrence."""

    context_GE: torch.Tensor  # the first cell's input weights, the context's columns
    top_QH: torch.Tensor  # everything that multiplies the top layer's last hidden state
    top_bias_Q: torch.Tensor


class Memory(NamedTuple):
    """What stays the same for all tokens: computed once by `init`, shared by the rows of an image.

    The weights are the parameters, joined and in the dtype of the matmul, so that a step neither joins
    nor casts them again.
    """

    word_GD: torch.Tensor  # the first cell's input weights, the word's columns
    word_bias_G: torch.Tensor
    image: Cells | None = None  # of a decoder that attends
    joined: Joined | None = None

    def word_gates(self, embedded_BKD: torch.Tensor) -> torch.Tensor:
        """The words' share of the first cell's gates."""
        return linear(embedded_BKD, self.word_GD, self.word_bias_G)


class DecoderState(NamedTuple):
    """Hidden and cell state of every layer for K rows of each of B images, and the images' memory."""

    hidden_LBKH: torch.Tensor
    cell_LBKH: torch.Tensor  # at least float32, also under autocast
    memory: Memory

    def select(self, images_S: torch.Tensor) -> "DecoderState":
        """Only some of the images, with all their rows."""
        image = self.memory.image
        if image is not None:
            image = Cells(*(tensor.index_select(0, images_S) for tensor in image))
        hidden_LSKH, cell_LSKH = (state.index_select(1, images_S) for state in (self.hidden_LBKH, self.cell_LBKH))
        return DecoderState(hidden_LSKH, cell_LSKH, self.memory._replace(image=image))

    def reorder(self, beams_BW: torch.Tensor) -> "DecoderState":
        """Row w of image b becomes what row beams_BW[b, w] was; the images' memory is not copied."""
        layers, _, _, hidden = self.hidden_LBKH.shape
        rows_LBWH = beams_BW[None, :, :, None].expand(layers, -1, -1, hidden)
        return self._replace(
            hidden_LBKH=self.hidden_LBKH.gather(2, rows_LBWH), cell_LBKH=self.cell_LBKH.gather(2, rows_LBWH)
        )
