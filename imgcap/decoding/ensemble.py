"""Decoders that speak as one: at each step the mean of their probabilities.

Dimensions: M decoders, B images, K rows of each, V vocabulary, P grid cells, E encoder width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import DecoderState
from imgcap.models.kernels.dtypes import exact_dtype


class EnsembleState(NamedTuple):
    """State of an ensemble: one for each decoder."""

    states: tuple[DecoderState, ...]

    def select(self, images_S: Tensor) -> "EnsembleState":
        return EnsembleState(tuple(state.select(images_S) for state in self.states))

    def reorder(self, beams_BW: Tensor) -> "EnsembleState":
        return EnsembleState(tuple(state.reorder(beams_BW) for state in self.states))


class Ensemble:
    """Several decoders of one vocabulary as one, each with features of its own encoder; one alone is as it is without.

    The attention is that of the first.
    """

    def __init__(self, decoders: Sequence[Decoder]):
        assert decoders, "an ensemble has a decoder"
        self.decoders = decoders

    @property
    def attends(self) -> bool:
        return self.decoders[0].attends

    def init(self, features_BPE: Sequence[Tensor], rows: int, length: int) -> EnsembleState:
        begun = (
            decoder.init(own_BPE, rows, length) for decoder, own_BPE in zip(self.decoders, features_BPE, strict=True)
        )
        return EnsembleState(tuple(begun))

    def eager(self, state: EnsembleState, attention: bool) -> EnsembleState:
        """Ready the states for steps that the host launches one by one."""
        own = zip(self.decoders, state.states, strict=True)
        return EnsembleState(tuple(decoder.eager(state, attention) for decoder, state in own))

    def step(self, state: EnsembleState, token_BK: Tensor) -> tuple[Tensor, EnsembleState, Tensor | None]:
        steps = [decoder.step(own, token_BK) for decoder, own in zip(self.decoders, state.states, strict=True)]
        logits, states, attention = zip(*steps, strict=True)
        return _mean(logits), EnsembleState(states), attention[0]


def _mean(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the mean of the probabilities: log(p_1 + ... + p_M)."""
    if len(logits) == 1:
        return logits[0]
    log_probs_MBKV = torch.stack([own_BKV.to(exact_dtype(own_BKV.dtype)).log_softmax(-1) for own_BKV in logits])
    return log_probs_MBKV.logsumexp(0)
