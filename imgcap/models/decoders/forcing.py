"""Teacher forcing and scheduled sampling over any decoder: which words it reads in training.

Dimensions: B images, K captions an image, T tokens, V vocabulary, P grid cells, E encoder width, R readout width.
"""

import torch
from torch import Tensor

from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import DecoderState
from imgcap.types import PAD, Forcing

BLOCK = 1 << 24  # logits that a guess of all words looks at together


def unroll(
    decoder: Decoder, features_BPE: Tensor, tokens_BKT: Tensor, forcing: Forcing | None = None, attention: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Predict tokens 1 to T - 1 from those before; return readout_BKTR and attention_BKTP of T - 1 steps.

    The tokens before are the given ones, or, with `forcing`, some of them the model's own, neither in place of padding
    nor padding. No gradient goes through the choice of a word: the words are chosen first, then all are known.
    Attention is for those who ask for it.
    """
    rows, length = tokens_BKT.shape[1:]
    in_turn = forcing is not None and not forcing.two_pass
    state = decoder.init(features_BPE, rows, length if in_turn else 0)
    if forcing is not None:
        choose = _choose_in_two_passes if forcing.two_pass else _choose_in_turn
        with torch.no_grad():
            tokens_BKT = choose(decoder, state, tokens_BKT, forcing.coins_BKT < forcing.ratio)
    return decoder.read(state, tokens_BKT, attention)


def _choose_in_turn(decoder: Decoder, state: DecoderState, tokens_BKT: Tensor, given_BKT: Tensor) -> Tensor:
    """Scheduled sampling as published (Bengio et al. 2015): each guess follows the words that were read before it."""
    tokens, read = tokens_BKT.unbind(-1), [tokens_BKT[..., 0]]
    for t in range(len(tokens) - 2):
        logits_BKV, state, _ = decoder.step(state, read[-1])
        read.append(_chosen(given_BKT[..., t], tokens[t + 1], logits_BKV.argmax(-1)))
    return torch.stack([*read, tokens[-1]], dim=-1)  # the last is only predicted, never read


def _choose_in_two_passes(decoder: Decoder, state: DecoderState, tokens_BKT: Tensor, given_BKT: Tensor) -> Tensor:
    """Scheduled sampling in parallel (Duckworth et al. 2019): each guess follows the true words."""
    readout_BKTR, _ = decoder.read(state, tokens_BKT, attention=False)
    logits_of_an_image = readout_BKTR[0, ..., 0].numel() * decoder.output.out_features
    blocks = readout_BKTR.split(max(BLOCK // logits_of_an_image, 1))
    guesses_BKT = torch.cat([decoder.output(block_BKTR).argmax(-1) for block_BKTR in blocks])
    chosen_BKT = _chosen(given_BKT[..., :-1], tokens_BKT[..., 1:], guesses_BKT)
    return torch.cat([tokens_BKT[..., :1], chosen_BKT], dim=-1)


def _chosen(given: Tensor, true: Tensor, guess: Tensor) -> Tensor:
    return torch.where(given | (true == PAD) | (guess == PAD), true, guess)
