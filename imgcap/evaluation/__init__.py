"""Evaluation: distributed decoding of a split, its scores, and the signature that makes them comparable."""

from imgcap.evaluation.ptb import clean, tokenise
from imgcap.evaluation.scorers import METRICS, score

__all__ = ["METRICS", "clean", "score", "tokenise"]
