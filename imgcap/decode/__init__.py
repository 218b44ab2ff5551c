"""From features to captions: batched beam search."""

from imgcap.decode.beam import Hypotheses, beam_search

__all__ = ["Hypotheses", "beam_search"]
