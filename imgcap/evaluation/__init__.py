"""Evaluation: distributed decoding of a split, its scores, and the signature that makes them comparable."""

from imgcap.evaluation.coco_files import read_references, read_results, with_other_images
from imgcap.evaluation.evaluator import EvaluationStopped, Evaluator
from imgcap.evaluation.ptb import clean, tokenise
from imgcap.evaluation.results import Evaluation, Example, scores_of, write_json, write_results
from imgcap.evaluation.scorers import METRICS, forget_references, score
from imgcap.evaluation.signature import signature

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationStopped",
    "Evaluator",
    "Example",
    "clean",
    "forget_references",
    "read_references",
    "read_results",
    "score",
    "scores_of",
    "signature",
    "tokenise",
    "with_other_images",
    "write_json",
    "write_results",
]
