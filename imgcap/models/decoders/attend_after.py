"""An LSTM decoder that attends after its recurrence (Luong et al. 2015, without input feeding).

No step waits for the attention of the one before: in training, all steps ask the image at once.

Dimensions: B images, K captions or W beams an image, T tokens, N = BK, P grid cells, D embedding width,
E encoder width, G = 4H gates of an LSTM cell.
"""

from collections.abc import Sequence

import torch

from imgcap.models.decoders.attending import AttendingDecoder
from imgcap.models.decoders.base import Advance
from imgcap.models.decoders.state import DecoderState, Memory


class AttendAfterDecoder(AttendingDecoder):
    """The cells read words; the top layer's new hidden state h asks for the context z of the word it predicts.

    `output: linear`: L_o tanh(L_h h + L_z z), Luong's attentional state; `deep`: L_o (E y + L_h h + L_z z). Dropout
    before L_o. Only `init_state: mean` and the context tell the decoder of the image.
    """

    reads_context = False

    def init(self, features_BPE: torch.Tensor, rows: int) -> DecoderState:
        """Project the features once."""
        image, first = self.look(features_BPE), self.cells[0]
        dtype = image.features_BPE.dtype
        memory = Memory(first.weight_ih.to(dtype), first.bias_ih.to(dtype), image)
        return DecoderState(*self.begin(image.features_BPE, rows), memory)

    def advance(
        self,
        hidden_BKH: Sequence[torch.Tensor],
        cell_BKH: Sequence[torch.Tensor],
        memory: Memory,
        word_gates_BKG: torch.Tensor,
    ) -> Advance:
        hidden, cell = self.run_cells(word_gates_BKG, hidden_BKH, cell_BKH)
        return Advance(hidden, cell, *self._ask(memory, hidden[-1]))

    def _ask(self, memory: Memory, hidden_BKH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert memory.image is not None, "init gives the image"
        context_BKE, attention_BKP = self.attention(*memory.image, self.attention.query(hidden_BKH))
        if self.gate is not None:
            context_BKE = context_BKE * self.gate(hidden_BKH).sigmoid()
        return context_BKE, attention_BKP

    def unroll_given(self, state: DecoderState, tokens_BKT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in `Decoder`, all steps' attention and the images' K captions in one call."""
        embedded_TBKD = self.embedding(tokens_BKT[..., :-1].permute(2, 0, 1))
        hidden_BKTH = self.run_words(state, embedded_TBKD)
        context_BME, attention_BMP = self._ask(state.memory, hidden_BKTH.flatten(1, 2))
        context_BKTE, attention_BKTP = (x.unflatten(1, hidden_BKTH.shape[1:3]) for x in (context_BME, attention_BMP))
        return self.readout(embedded_TBKD.permute(1, 2, 0, 3), hidden_BKTH, context_BKTE), attention_BKTP

    def readout(
        self, embedded_BKD: torch.Tensor, hidden_BKH: torch.Tensor, context_BKE: torch.Tensor | None
    ) -> torch.Tensor:
        assert self.output_hidden is not None and self.output_context is not None
        read_BKH = self.output_hidden(hidden_BKH) + self.output_context(context_BKE)
        return self.dropout(embedded_BKD.to(read_BKH.dtype) + read_BKH if self.deep else read_BKH.tanh())
