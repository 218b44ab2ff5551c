"""Evaluation: distributed decoding of a split, its scores, and the signature that makes them comparable."""

from imgcap.evaluation.coco_files import (
    captions_of,
    read_references,
    read_results,
    split_of_shards,
    with_other_images,
)
from imgcap.evaluation.diversity import train_split
from imgcap.evaluation.evaluator import EvaluationStopped, Evaluator
from imgcap.evaluation.imgcap_protocol import score_as_imgcap
from imgcap.evaluation.languages import tokeniser_name
from imgcap.evaluation.ptb import clean, tokenise
from imgcap.evaluation.results import Evaluation, Example, scores_of, write_json, write_results
from imgcap.evaluation.scorers import ALL_METRICS, METRICS, forget_references, score, score_images
from imgcap.evaluation.signature import signature

__all__ = [
    "ALL_METRICS",
    "METRICS",
    "Evaluation",
    "EvaluationStopped",
    "Evaluator",
    "Example",
    "captions_of",
    "clean",
    "forget_references",
    "read_references",
    "read_results",
    "score",
    "score_as_imgcap",
    "score_images",
    "scores_of",
    "signature",
    "split_of_shards",
    "tokenise",
    "tokeniser_name",
    "train_split",
    "with_other_images",
    "write_json",
    "write_results",
]
