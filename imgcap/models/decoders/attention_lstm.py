"""The decoder of Show, Attend and Tell (Xu et al. 2015), soft attention, and its plainer variants.

Dimensions: L layers, B images, K captions or W beams an image, T tokens, S = K (T - 1), M rows: steps that are
computed, V vocabulary, P grid cells, D embedding width, E encoder width, H hidden width, A attention width,
G = 4H gates of an LSTM cell, X = E or G, Q = A + G (+ E with a gate).
"""

import torch
from torch import Tensor

from imgcap.config.model import AttentionLSTMConfig
from imgcap.models.decoders.attending import AttendingDecoder
from imgcap.models.decoders.attention import AdditiveAttention
from imgcap.models.decoders.lstm_stack import Advance, LSTMState, Prepared, Stacked
from imgcap.models.kernels.attention_lstm import Attending, Inputs, Layer, unroll
from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import linear


class AttentionLSTMDecoder(AttendingDecoder):
    """LSTM decoder whose last top hidden state asks for the context that the first cell reads beside the word.

    `output: linear`: L_o h; `deep`: L_o (E y + L_h h + L_z z), the paper's equation 7. Dropout before L_o.
    """

    reads_context = True
    attention: AdditiveAttention

    def __init__(self, config: AttentionLSTMConfig, vocabulary_size: int, encoder_width: int):
        super().__init__(config, vocabulary_size, encoder_width)
        gate = 0 if self.gate is None else self.gate.out_features
        self._product_widths = [config.attention_dim, 4 * config.hidden_dim, gate]

    def init(self, features_BPE: Tensor, rows: int, length: int) -> LSTMState:
        """Begin captions: project the features once, and join the weights that share an input."""
        features_BPE, projected_BPA = self.look(features_BPE)
        dtype, first, top = features_BPE.dtype, self.cells[0], self.cells[-1]
        word_GD, context_GE = first.weight_ih.split([self.embed_dim, features_BPE.shape[-1]], dim=1)
        gate = [] if self.gate is None else [self.gate.weight]
        gate_bias = [] if self.gate is None else [self.gate.bias]
        no_bias_A = torch.zeros_like(self.attention.score.weight[0])  # of the query
        prepared = Prepared(
            word_GD=word_GD.to(dtype).contiguous(),
            word_bias_G=first.bias_ih.to(dtype),
            context_GE=context_GE.to(dtype).contiguous(),
            top_QH=torch.cat([self.attention.query.weight, top.weight_hh, *gate]).to(dtype),
            top_bias_Q=torch.cat([no_bias_A, top.bias_hh, *gate_bias]).to(dtype),
        )
        return LSTMState(prepared, *self.begin(features_BPE, rows), features_BPE, projected_BPA)

    def advance(self, state: LSTMState, hidden_BKH: Stacked, cell_BKH: Stacked, word_gates_BKG: Tensor) -> Advance:
        _, _, context_GE, top_QH, top_bias_Q = state.prepared
        assert context_GE is not None and top_QH is not None, "init gives both"
        products = linear(hidden_BKH[-1], top_QH, top_bias_Q)
        query_BKA, recurrent_BKG, gate_BKE = products.split(self._product_widths, dim=-1)
        gate = None if self.gate is None else gate_BKE
        context_BKE, attention_BKP = self.attention(state.features_BPE, state.projected_BPA, query_BKA, gate)
        gates_BKG = word_gates_BKG + linear(context_BKE, context_GE)
        hidden, cell = self.run_cells(gates_BKG, hidden_BKH, cell_BKH, recurrent_BKG)
        return Advance(hidden, cell, context_BKE, attention_BKP)

    def read(self, state: LSTMState, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        """Read known tokens (see `Decoder.read`), by one function over all steps where that is faster."""
        _, _, context_GX, top_QH, top_bias_Q = state.prepared
        features_BPE, projected_BPA = state.features_BPE, state.projected_BPA
        assert features_BPE is not None and projected_BPA is not None, "init gives the image"
        on_gpu = fused(features_BPE, features_BPE.shape[1])
        if not (on_gpu or torch.is_grad_enabled()):
            return super().read(state, tokens_BKT, attention)
        assert context_GX is not None and top_QH is not None and top_bias_Q is not None, "init gives the weights"
        rows, embedded_MD = self.embed(tokens_BKT)
        word_gates_MG = state.prepared.word_gates(embedded_MD)
        dtype, values_BPX = word_gates_MG.dtype, features_BPE
        early = self.gate is None and sum(rows.sizes) > features_BPE[..., 0].numel()
        if early:  # fewer cells than steps: multiply the cells, once, not the steps' contexts
            values_BPX = linear(values_BPX, context_GX)
        score_A, score_bias_1 = self.attention.score.weight[0].to(dtype), self.attention.score.bias
        cells = rows.images(values_BPX), rows.images(projected_BPA)
        attending = Attending(*cells, score_A, score_bias_1, None if early else context_GX, top_QH, top_bias_Q)
        layers = [self._layer(index, dtype, word_gates_MG[..., : self.hidden_dim]) for index in range(len(self.cells))]
        states = rows.captions(state.hidden_LBKH), rows.captions(state.cell_LBKH)
        inputs = Inputs(word_gates_MG, *states, attending, layers)
        hidden_MH, attention_MP, context_MX = _unroll_on_gpu(inputs) if on_gpu else unroll(inputs, rows.sizes)
        attention_BKTP = rows.spread(attention_MP)
        if early and self.output_context is not None:
            context_BSE = attention_BKTP.flatten(1, 2).to(features_BPE.dtype) @ features_BPE
            context_MX = rows.pick(context_BSE.unflatten(1, attention_BKTP.shape[1:3]))
        return rows.spread(self.readout(embedded_MD, hidden_MH, context_MX)), attention_BKTP

    def _layer(self, index: int, dtype: torch.dtype, like_MH: Tensor) -> Layer:
        """Weights and dropout of one LSTM cell, in the matmul's dtype; `like_MH` has the shape of what it reads."""
        cell, last = self.cells[index], len(self.cells) - 1
        dropped = index and self.dropout.drops
        kept_MH = self.dropout(torch.ones_like(like_MH, dtype=exact_dtype(dtype))) if dropped else None
        weight_ih, bias_ih = (cell.weight_ih.to(dtype), cell.bias_ih.to(dtype)) if index else (None, None)
        weight_hh, bias_hh = (cell.weight_hh.to(dtype), cell.bias_hh.to(dtype)) if index < last else (None, None)
        return Layer(weight_ih, bias_ih, weight_hh, bias_hh, kept_MH)

    def readout(self, embedded_BKD: Tensor, hidden_BKH: Tensor, context_BKE: Tensor | None) -> Tensor:
        if self.output_hidden is None or self.output_context is None:
            return self.dropout(hidden_BKH)
        deep_BKD = embedded_BKD.to(hidden_BKH.dtype) + self.output_hidden(hidden_BKH) + self.output_context(context_BKE)
        return self.dropout(deep_BKD)


def _unroll_on_gpu(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    from imgcap.models.kernels.gpu import attention_lstm  # Triton is needed here alone, and not everywhere there

    return attention_lstm.unroll(inputs)
