"""What every LSTM decoder shares: words in, logits out, and one step that `step` and `unroll` both take.

Dimensions: L layers, B images, K captions or W beams an image, T tokens, V vocabulary, P grid cells,
D embedding width, E encoder width, H hidden width, G = 4H gates of an LSTM cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from imgcap.config.model import DecoderConfig
from imgcap.models.decoders.cell import lstm_cell
from imgcap.models.decoders.recurrent import run_stack
from imgcap.models.decoders.state import DecoderState, Memory
from imgcap.ops.dropout import Dropout
from imgcap.ops.linear import linear
from imgcap.types import Forcing

BLOCK = 1 << 24  # logits that a guess of all words looks at together


class Advance(NamedTuple):
    """The result of one step, a hidden and a cell state for each layer; no context without attention."""

    hidden_BKH: Sequence[torch.Tensor]
    cell_BKH: Sequence[torch.Tensor]
    context_BKE: torch.Tensor | None = None
    attention_BKP: torch.Tensor | None = None


class Decoder(nn.Module):
    """A stack of LSTM cells between a word embedding and a vocabulary.

    The K captions (or W beams) of an image share its features, which are never copied.
    """

    def __init__(self, config: DecoderConfig, vocabulary_size: int, input_width: int):
        super().__init__()
        self.hidden_dim = config.hidden_dim
        self.embed_dim = config.embed_dim
        self.embedding = nn.Embedding(vocabulary_size, config.embed_dim)
        widths = [input_width] + [config.hidden_dim] * (config.layers - 1)
        self.cells: Sequence[nn.LSTMCell] = nn.ModuleList(  # type: ignore[assignment]
            nn.LSTMCell(width, config.hidden_dim) for width in widths
        )
        self.dropout = Dropout(config.dropout)
        self.output: nn.Linear  # of a readout to the vocabulary
        for cell in self.cells:
            _initialise_cell(cell)

    def init(self, features_BPE: torch.Tensor, rows: int) -> DecoderState:
        """Begin captions of B images, `rows` of them for each."""
        raise NotImplementedError

    def advance(
        self,
        hidden_BKH: Sequence[torch.Tensor],
        cell_BKH: Sequence[torch.Tensor],
        memory: Memory,
        word_gates_BKG: torch.Tensor,
    ) -> Advance:
        """Take one step, given the word's share of the first cell's gates."""
        raise NotImplementedError

    def run_cells(
        self,
        gates_BKG: torch.Tensor,
        hidden_BKH: Sequence[torch.Tensor],
        cell_BKH: Sequence[torch.Tensor],
        top_recurrent_BKG: torch.Tensor | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Run the stack, given what the input adds to the first cell's gates; return new hidden and cell states.

        The top layer's recurrent product may be given too, where it was computed beside others.
        """
        hidden: list[torch.Tensor] = []
        cell: list[torch.Tensor] = []
        for layer, module in enumerate(self.cells):
            if layer:
                gates_BKG = linear(self.dropout(hidden[-1]), module.weight_ih, module.bias_ih)
            if top_recurrent_BKG is not None and layer == len(self.cells) - 1:
                recurrent_BKG = top_recurrent_BKG
            else:
                recurrent_BKG = linear(hidden_BKH[layer], module.weight_hh, module.bias_hh)
            new_hidden_BKH, new_cell_BKH, _ = lstm_cell(gates_BKG + recurrent_BKG, cell_BKH[layer])
            hidden.append(new_hidden_BKH)
            cell.append(new_cell_BKH)
        return hidden, cell

    def run_words(self, state: DecoderState, embedded_TBKD: torch.Tensor) -> torch.Tensor:
        """Run the stack over all words where it reads nothing else; return the top hidden states (B, K, T, H)."""
        gates_TNG = state.memory.word_gates(embedded_TBKD.flatten(1, 2))
        hidden_LNH, cell_LNH = state.hidden_LBKH.flatten(1, 2), state.cell_LBKH.flatten(1, 2)
        hidden_TNH = run_stack(self.cells, self.dropout, gates_TNG, hidden_LNH, cell_LNH)
        return hidden_TNH.unflatten(1, embedded_TBKD.shape[1:3]).permute(1, 2, 0, 3)

    def readout(
        self, embedded_BKD: torch.Tensor, hidden_BKH: torch.Tensor, context_BKE: torch.Tensor | None
    ) -> torch.Tensor:
        """What `output` scores the vocabulary from after a step, or after all of them at once (BKT for BK)."""
        raise NotImplementedError

    def step(
        self, state: DecoderState, token_BK: torch.Tensor
    ) -> tuple[torch.Tensor, DecoderState, torch.Tensor | None]:
        """Read a token of each row; return logits_BKV of the next, the new state and attention_BKP."""
        embedded_BKD = self.embedding(token_BK)
        hidden_LBKH, cell_LBKH, memory = state
        after = self.advance(hidden_LBKH.unbind(), cell_LBKH.unbind(), memory, memory.word_gates(embedded_BKD))
        logits_BKV = self.output(self.readout(embedded_BKD, after.hidden_BKH[-1], after.context_BKE))
        state = DecoderState(torch.stack(list(after.hidden_BKH)), torch.stack(list(after.cell_BKH)), memory)
        return logits_BKV, state, after.attention_BKP

    def unroll(
        self,
        features_BPE: torch.Tensor,
        tokens_BKT: torch.Tensor,
        forcing: Forcing | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predict tokens 1 to T - 1 from those before; return the readouts and attention_BKTP of T - 1 steps.

        The tokens before are the given ones, or, with `forcing`, some of them the model's own. `output` turns the
        readouts into logits: losses and guesses do that a block at a time.
        """
        state = self.init(features_BPE, tokens_BKT.shape[1])
        if forcing is not None:
            # No gradient goes through the choice of a word: the words are chosen first, then all are known.
            choose = self._choose_at_once if forcing.two_pass else self._choose_in_turn
            with torch.no_grad():
                tokens_BKT = choose(state, tokens_BKT, forcing.coins_BKT < forcing.ratio)
        return self.unroll_given(state, tokens_BKT)

    def predict(
        self, features_BPE: torch.Tensor, tokens_BKT: torch.Tensor, forcing: Forcing | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `unroll`, but logits_BKTV of all steps."""
        readout_BKTR, attention_BKTP = self.unroll(features_BPE, tokens_BKT, forcing)
        return self.output(readout_BKTR), attention_BKTP

    def unroll_given(self, state: DecoderState, tokens_BKT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """All tokens are known: the words' gates before the loop and the readouts after it are one matmul each."""
        embedded_TBKD = self.embedding(tokens_BKT[..., :-1].permute(2, 0, 1))
        hidden_BKH: Sequence[torch.Tensor] = state.hidden_LBKH.unbind()
        cell_BKH: Sequence[torch.Tensor] = state.cell_LBKH.unbind()
        steps = []
        for word_gates_BKG in state.memory.word_gates(embedded_TBKD).unbind():
            step = self.advance(hidden_BKH, cell_BKH, state.memory, word_gates_BKG)
            hidden_BKH, cell_BKH = step.hidden_BKH, step.cell_BKH
            steps.append(step)
        hidden_BKTH = torch.stack([step.hidden_BKH[-1] for step in steps], dim=2)
        context_BKTE = _stack_steps([step.context_BKE for step in steps])
        attention_BKTP = _stack_steps([step.attention_BKP for step in steps])
        return self.readout(embedded_TBKD.permute(1, 2, 0, 3), hidden_BKTH, context_BKTE), attention_BKTP

    def _choose_in_turn(self, state: DecoderState, tokens_BKT: torch.Tensor, given_BKT: torch.Tensor) -> torch.Tensor:
        """Each guess follows the words that were read before it."""
        tokens, read = tokens_BKT.unbind(-1), [tokens_BKT[..., 0]]
        for t in range(len(tokens) - 2):
            logits_BKV, state, _ = self.step(state, read[-1])
            read.append(torch.where(given_BKT[..., t], tokens[t + 1], logits_BKV.argmax(-1)))
        return torch.stack([*read, tokens[-1]], dim=-1)  # the last is only predicted, never read

    def _choose_at_once(self, state: DecoderState, tokens_BKT: torch.Tensor, given_BKT: torch.Tensor) -> torch.Tensor:
        """Each guess follows the true words."""
        readout_BKTR, _ = self.unroll_given(state, tokens_BKT)
        logits_of_an_image = readout_BKTR[0, ..., 0].numel() * self.output.out_features
        blocks = readout_BKTR.split(max(BLOCK // logits_of_an_image, 1))
        guesses_BKT = torch.cat([self.output(block_BKTR).argmax(-1) for block_BKTR in blocks])
        chosen_BKT = torch.where(given_BKT[..., :-1], tokens_BKT[..., 1:], guesses_BKT)
        return torch.cat([tokens_BKT[..., :1], chosen_BKT], dim=-1)


def _stack_steps(steps: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [step for step in steps if step is not None]
    return torch.stack(present, dim=2) if present else None


def _initialise_cell(cell: nn.LSTMCell) -> None:
    """Orthogonal recurrence, and a forget gate that begins open (bias 1 in the sum of the two)."""
    hidden = cell.hidden_size
    nn.init.xavier_uniform_(cell.weight_ih)
    for gate in cell.weight_hh.data.split(hidden):
        nn.init.orthogonal_(gate)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    nn.init.ones_(cell.bias_ih.data[hidden : 2 * hidden])


def initialise_output(output: nn.Linear) -> None:
    """Logits of variance 1 for inputs of variance 1, whatever the width (LeCun), and no word preferred."""
    bound = (3 / output.in_features) ** 0.5
    nn.init.uniform_(output.weight, -bound, bound)
    nn.init.zeros_(output.bias)
