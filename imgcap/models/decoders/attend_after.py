"""An LSTM decoder that attends after its recurrence (Luong et al. 2015, without input feeding).

No step waits for the attention of the one before: in training, all steps ask the image at once.

Dimensions: B images, K captions or W beams an image, T tokens, S = K (T - 1), M rows: steps that are computed,
P grid cells, D embedding width, E encoder width, H hidden width.
"""

from torch import Tensor

from imgcap.models.decoders.attending import AttendingDecoder
from imgcap.models.decoders.lstm_stack import Advance, LSTMState, Prepared, Stacked


class AttendAfterDecoder(AttendingDecoder):
    """LSTM decoder whose new top hidden state h asks at each step for the context z of the word it predicts.

    `output: linear`: L_o tanh(L_h h + L_z z), Luong's attentional state; `deep`: L_o (E y + L_h h + L_z z). Dropout
    before L_o. Only `init_state: mean` and the context tell the decoder of the image.
    """

    reads_context = False

    def init(self, features_BPE: Tensor, rows: int, length: int) -> LSTMState:
        features_BPE, projected_BPA = self.look(features_BPE)
        dtype, first = features_BPE.dtype, self.cells[0]
        prepared = Prepared(first.weight_ih.to(dtype), first.bias_ih.to(dtype))
        return LSTMState(prepared, *self.begin(features_BPE, rows), features_BPE, projected_BPA)

    def advance(self, state: LSTMState, hidden_BKH: Stacked, cell_BKH: Stacked, word_gates_BKG: Tensor) -> Advance:
        hidden, cell = self.run_cells(word_gates_BKG, hidden_BKH, cell_BKH)
        return Advance(hidden, cell, *self._ask(state, hidden[-1]))

    def _ask(self, state: LSTMState, hidden_BKH: Tensor) -> tuple[Tensor, Tensor]:
        query_BKA = self.attention.query(hidden_BKH)
        gate_BKE = None if self.gate is None else self.gate(hidden_BKH)
        return self.attention(state.features_BPE, state.projected_BPA, query_BKA, gate_BKE)

    def read(self, state: LSTMState, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        """Read known tokens (see `Decoder.read`); the attention of all steps and captions is one call."""
        rows, embedded_MD = self.embed(tokens_BKT)
        hidden_MH = self.run_words(state, rows, embedded_MD)
        hidden_BKTH = rows.spread(hidden_MH)
        context_BSE, attention_BSP = self._ask(state, hidden_BKTH.flatten(1, 2))
        context_BKTE, attention_BKTP = (x.unflatten(1, hidden_BKTH.shape[1:3]) for x in (context_BSE, attention_BSP))
        return rows.spread(self.readout(embedded_MD, hidden_MH, rows.pick(context_BKTE))), attention_BKTP

    def readout(self, embedded_BKD: Tensor, hidden_BKH: Tensor, context_BKE: Tensor | None) -> Tensor:
        assert self.output_hidden is not None and self.output_context is not None
        read_BKH = self.output_hidden(hidden_BKH) + self.output_context(context_BKE)
        return self.dropout(embedded_BKD.to(read_BKH.dtype) + read_BKH if self.deep else read_BKH.tanh())
