"""The decoder of Show and Tell (Vinyals et al. 2015): the image is the first word.

Dimensions: L layers, B images, K captions or W beams an image, P grid cells, D embedding width,
E encoder width, H hidden width, G = 4H gates of an LSTM cell.
"""

import torch
from torch import Tensor, nn

from imgcap.config.model import LSTMConfig
from imgcap.models.decoders.lstm_stack import Advance, LSTMStackDecoder, LSTMState, Prepared, Stacked, initialise_output
from imgcap.models.kernels.dropout import Dropout
from imgcap.models.kernels.dtypes import compute_dtype, exact_dtype
from imgcap.models.kernels.linear import Linear


class LSTMDecoder(LSTMStackDecoder):
    """LSTM decoder that reads the mean of the cells, by `image_layers` ReLU layers and a projection, before <sos>."""

    attends = False

    def __init__(self, config: LSTMConfig, vocabulary_size: int, encoder_width: int):
        super().__init__(config, vocabulary_size, config.embed_dim)
        layers: list[nn.Module] = []
        width = encoder_width
        for _ in range(config.image_layers):
            layers += [Linear(width, config.hidden_dim), nn.ReLU(), Dropout(config.dropout)]
            width = config.hidden_dim
        self.image = nn.Sequential(*layers, Linear(width, config.embed_dim))
        self.output = Linear(config.hidden_dim, vocabulary_size)
        initialise_output(self.output)

    def init(self, features_BPE: Tensor, rows: int, length: int) -> LSTMState:
        """Begin captions: read the image once for all rows."""
        first = self.cells[0]
        dtype = compute_dtype(first.weight_ih)
        prepared = Prepared(first.weight_ih.to(dtype), first.bias_ih.to(dtype))
        image_B1D = self.image(features_BPE.to(dtype).mean(1, keepdim=True))
        zeros_B1H = image_B1D.new_zeros(image_B1D.shape[0], 1, self.hidden_dim)
        hidden, cell = [zeros_B1H] * len(self.cells), [zeros_B1H.to(exact_dtype(dtype))] * len(self.cells)
        after = self.run_cells(prepared.word_gates(image_B1D), hidden, cell)
        return LSTMState(prepared, *(torch.stack(states).expand(-1, -1, rows, -1) for states in after))

    def advance(self, state: LSTMState, hidden_BKH: Stacked, cell_BKH: Stacked, word_gates_BKG: Tensor) -> Advance:
        return Advance(*self.run_cells(word_gates_BKG, hidden_BKH, cell_BKH))

    def read(self, state: LSTMState, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        """Read known tokens (see `Decoder.read`), a layer at a time."""
        rows, embedded_MD = self.embed(tokens_BKT)
        hidden_MH = self.run_words(state, rows, embedded_MD)
        return rows.spread(self.readout(embedded_MD, hidden_MH, None)), None

    def readout(self, embedded_BKD: Tensor, hidden_BKH: Tensor, context_BKE: Tensor | None) -> Tensor:
        return self.dropout(hidden_BKH)
