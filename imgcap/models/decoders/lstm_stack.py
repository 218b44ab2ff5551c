"""What the LSTM decoders share: a stack of cells between a word embedding and a vocabulary.

Dimensions: L layers, B images, K captions or W beams an image, T tokens, N = BK, V vocabulary, P grid cells,
D embedding width, E encoder width, A attention width, H hidden width, R readout width, G = 4H gates of an LSTM cell,
M rows: steps that are computed, Q = A + G (+ E with a gate), products side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from imgcap.config.model import RecurrentConfig
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import Axes, DecoderState
from imgcap.models.kernels.dropout import Dropout
from imgcap.models.kernels.gpu.dispatch import fused
from imgcap.models.kernels.linear import linear
from imgcap.models.kernels.lstm_cell import lstm_cell
from imgcap.models.kernels.recurrent import run_stack
from imgcap.models.packed import RowsByStep, keeps_all_steps

Stacked = Sequence[Tensor]  # one for each layer of the stack


class Prepared(NamedTuple):
    """Weights of a decoder as every step uses them: split, joined, and in the dtype of the matmul."""

    word_GD: Tensor  # the first cell's input weights, the word's columns
    word_bias_G: Tensor
    # Where attention feeds the recurrence:
    context_GE: Tensor | None = None  # the first cell's input weights, the context's columns
    top_QH: Tensor | None = None  # everything that multiplies the top layer's last hidden state
    top_bias_Q: Tensor | None = None

    def word_gates(self, embedded_BKD: Tensor) -> Tensor:
        """The share of the words (..., D) in the first cell's gates."""
        return linear(embedded_BKD, self.word_GD, self.word_bias_G)


@dataclass(frozen=True)
class LSTMState(DecoderState):
    """Hidden and cell state of every layer, and the image's cells for a decoder that attends."""

    prepared: Prepared
    hidden_LBKH: Tensor
    cell_LBKH: Tensor  # at least float32, also under autocast
    features_BPE: Tensor | None = None
    projected_BPA: Tensor | None = None  # what attention scores the cells by

    axes: ClassVar[Mapping[str, Axes]] = {
        "hidden_LBKH": Axes(1, 2),
        "cell_LBKH": Axes(1, 2),
        "features_BPE": Axes(0),
        "projected_BPA": Axes(0),
    }


class Advance(NamedTuple):
    """Result of one decoder step: a hidden and a cell state for each layer; no context without attention."""

    hidden_BKH: Stacked
    cell_BKH: Stacked
    context_BKE: Tensor | None = None
    attention_BKP: Tensor | None = None


class LSTMStackDecoder(Decoder[LSTMState]):
    """Base of the LSTM decoders: one step, `advance`, that `step` and the plain loop of `read` both take.

    A subclass says how captions begin (`init`), what a step reads of the image (`advance`), and what the output layer
    reads (`readout`); it may write `read` so that it computes the same faster.
    """

    def __init__(self, config: RecurrentConfig, vocabulary_size: int, input_width: int):
        super().__init__()
        self.hidden_dim = config.hidden_dim
        self.embed_dim = config.embed_dim
        self.embedding = nn.Embedding(vocabulary_size, config.embed_dim)
        widths = [input_width] + [config.hidden_dim] * (config.layers - 1)
        self.cells: Sequence[nn.LSTMCell] = nn.ModuleList(  # type: ignore[assignment]
            nn.LSTMCell(width, config.hidden_dim) for width in widths
        )
        self.dropout = Dropout(config.dropout)
        for cell in self.cells:
            _initialise_cell(cell)

    def init(self, features_BPE: Tensor, rows: int, length: int) -> LSTMState:
        raise NotImplementedError

    def advance(self, state: LSTMState, hidden_BKH: Stacked, cell_BKH: Stacked, word_gates_BKG: Tensor) -> Advance:
        """Take one step from these hidden and cell states, given the word's share of the first cell's gates."""
        raise NotImplementedError

    def readout(self, embedded_BKD: Tensor, hidden_BKH: Tensor, context_BKE: Tensor | None) -> Tensor:
        """Compute what `output` turns into logits, after a step or of rows of all of them (M for BK)."""
        raise NotImplementedError

    def step(self, state: LSTMState, token_BK: Tensor) -> tuple[Tensor, LSTMState, Tensor | None]:
        embedded_BKD = self.embedding(token_BK)
        word_gates_BKG = state.prepared.word_gates(embedded_BKD)
        after = self.advance(state, state.hidden_LBKH.unbind(), state.cell_LBKH.unbind(), word_gates_BKG)
        logits_BKV = self.output(self.readout(embedded_BKD, after.hidden_BKH[-1], after.context_BKE))
        hidden_LBKH, cell_LBKH = torch.stack(list(after.hidden_BKH)), torch.stack(list(after.cell_BKH))
        state = state.with_tensors({"hidden_LBKH": hidden_LBKH, "cell_LBKH": cell_LBKH})
        return logits_BKV, state, after.attention_BKP

    def read(self, state: LSTMState, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        """Read known tokens (see `Decoder.read`) by the plain loop, which defines what faster ways have to compute."""
        embedded_TBKD = self.embedding(tokens_BKT[..., :-1].permute(2, 0, 1))
        steps = [Advance(state.hidden_LBKH.unbind(), state.cell_LBKH.unbind())]
        for word_gates_BKG in state.prepared.word_gates(embedded_TBKD).unbind():
            steps.append(self.advance(state, steps[-1].hidden_BKH, steps[-1].cell_BKH, word_gates_BKG))
        del steps[0]  # where they began
        hidden_BKTH = torch.stack([step.hidden_BKH[-1] for step in steps], dim=2)
        context_BKTE = _stack_steps([step.context_BKE for step in steps])
        attention_BKTP = _stack_steps([step.attention_BKP for step in steps])
        return self.readout(embedded_TBKD.permute(1, 2, 0, 3), hidden_BKTH, context_BKTE), attention_BKTP

    def embed(self, tokens_BKT: Tensor) -> tuple[RowsByStep, Tensor]:
        """Embed the words of all steps, but the last tokens, which are only predicted; return where they belong too."""
        targets_BKT = tokens_BKT[..., 1:]
        rows = RowsByStep(targets_BKT, whole=keeps_all_steps(targets_BKT, self.embedding.weight))
        return rows, self.embedding(rows.pick(tokens_BKT[..., :-1]))

    def run_cells(
        self, gates_BKG: Tensor, hidden_BKH: Stacked, cell_BKH: Stacked, top_recurrent_BKG: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run the stack, given what the input adds to the first cell's gates; return new hidden and cell states.

        The top layer's recurrent product may be given too, where it was computed beside others.
        """
        hidden: list[Tensor] = []
        cell: list[Tensor] = []
        for layer, module in enumerate(self.cells):
            if layer:
                gates_BKG = linear(self.dropout(hidden[-1]), module.weight_ih, module.bias_ih)
            if top_recurrent_BKG is not None and layer == len(self.cells) - 1:
                recurrent_BKG = top_recurrent_BKG
            else:
                recurrent_BKG = linear(hidden_BKH[layer], module.weight_hh, module.bias_hh)
            if fused(gates_BKG) and not torch.is_grad_enabled():
                new_hidden_BKH, new_cell_BKH = _cell_on_gpu(gates_BKG, recurrent_BKG, cell_BKH[layer])
            else:
                new_hidden_BKH, new_cell_BKH, _ = lstm_cell(gates_BKG + recurrent_BKG, cell_BKH[layer])
            hidden.append(new_hidden_BKH)
            cell.append(new_cell_BKH)
        return hidden, cell

    def run_words(self, state: LSTMState, rows: RowsByStep, embedded_MD: Tensor) -> Tensor:
        """Run the stack over all words where it reads nothing else; return the top hidden states (M, H)."""
        gates_MG = state.prepared.word_gates(embedded_MD)
        states = rows.captions(state.hidden_LBKH), rows.captions(state.cell_LBKH)
        return run_stack(self.cells, self.dropout, gates_MG, *states, rows.sizes)


def _cell_on_gpu(gates_BKG: Tensor, recurrent_BKG: Tensor, cell_BKH: Tensor) -> tuple[Tensor, Tensor]:
    from imgcap.models.kernels.gpu.cell import NewState, lstm_cell

    summands = [gates_BKG.flatten(0, 1), recurrent_BKG.flatten(0, 1)]
    new = NewState(gates_BKG.new_empty(cell_BKH.shape), cell_BKH.new_empty(cell_BKH.shape))
    lstm_cell(summands, cell_BKH.flatten(0, 1).contiguous(), new)
    return new.hidden_NH, new.cell_NH


def _stack_steps(steps: Sequence[Tensor | None]) -> Tensor | None:
    present = [step for step in steps if step is not None]
    return torch.stack(present, dim=2) if present else None


def _initialise_cell(cell: nn.LSTMCell) -> None:
    """Initialise an LSTM cell: orthogonal recurrence, and a forget gate that begins open (bias 1 in the sum of two)."""
    hidden = cell.hidden_size
    nn.init.xavier_uniform_(cell.weight_ih)
    for gate in cell.weight_hh.data.split(hidden):
        nn.init.orthogonal_(gate)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    nn.init.ones_(cell.bias_ih.data[hidden : 2 * hidden])


def initialise_output(output: nn.Linear) -> None:
    """Initialise an output layer: logits of variance 1 for inputs of variance 1 (LeCun), and no word preferred."""
    bound = (3 / output.in_features) ** 0.5
    nn.init.uniform_(output.weight, -bound, bound)
    nn.init.zeros_(output.bias)
