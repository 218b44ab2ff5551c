"""BLEU (Papineni et al. 2002) by pycocoevalcap, and the counts of each image that it is a function of.

Dimensions: N images or captions, S counts of each, O orders of n-grams.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from imgcap.evaluation.metrics.known_references import Comparison, KnownReferences
from imgcap.evaluation.metrics.ngrams import ORDERS

# Columns of the counts: length of the hypothesis, of the closest reference, n-grams of each order, those found.
LENGTH, REFERENCE_LENGTH, GUESSED, CORRECT = 0, 1, slice(2, 2 + ORDERS), slice(2 + ORDERS, 2 + 2 * ORDERS)
_TINY, _SMALL = 1e-15, 1e-9  # pycocoevalcap's, against divisions by zero


def bleu(
    references: Mapping[int, list[str]], hypotheses: Mapping[int, list[str]]
) -> tuple[list[float], list[float], np.ndarray]:
    """Score BLEU-1 to BLEU-4 of all images, BLEU-4 of each, and `counts_NS`; images in the order of `references`."""
    scorer = BleuScorer(n=ORDERS)
    for image_id, group in references.items():
        scorer += (hypotheses[image_id][0], group)
    corpus, images = scorer.compute_score(option="closest", verbose=0)  # verbose prints to stdout
    counts_NS = np.array([_counts(counted) for counted in scorer.ctest], np.int64)
    return [float(value) for value in corpus], images[ORDERS - 1], counts_NS


def bleu_of_counts(counts_S: np.ndarray) -> np.ndarray:
    """Compute BLEU-1 to BLEU-4, in the last dimension, from counts summed over images; any leading dimensions."""
    precisions = (counts_S[..., CORRECT] + _TINY) / (counts_S[..., GUESSED] + _SMALL)
    scores = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (counts_S[..., LENGTH] + _TINY) / (counts_S[..., REFERENCE_LENGTH] + _SMALL)
    return scores * np.exp(np.minimum(1 - 1 / ratio, 0))[..., None]


def compared_counts(known: KnownReferences, compared: Comparison) -> np.ndarray:
    """The counts of captions beside the references of their images, `counts_NS`, as `bleu` gives them."""
    lengths_N, captions = compared.texts.lengths_N, len(compared.texts.lengths_N)
    counts_NS = np.zeros((captions, 2 + 2 * ORDERS), np.int64)
    counts_NS[:, LENGTH] = lengths_N
    lengths_C = known.lengths_R[compared.reference_C].astype(np.int64)
    distance_C = np.abs(lengths_C - lengths_N[compared.caption_C])
    nearest_N = np.minimum.reduceat(distance_C << 32 | lengths_C, compared.first_C[:-1])  # the shorter of two as near
    counts_NS[:, REFERENCE_LENGTH] = nearest_N & 0xFFFFFFFF
    counts_NS[:, GUESSED] = np.maximum(lengths_N[:, None] - np.arange(ORDERS), 0)
    correct_H = np.minimum(compared.count_H, compared.most_H)
    cells_H = compared.caption_H * ORDERS + compared.order_H
    counts_NS[:, CORRECT] = np.bincount(cells_H, correct_H, minlength=captions * ORDERS).reshape(captions, ORDERS)
    return counts_NS


def _counts(counted: Mapping[str, Any]) -> list[int]:
    length = counted["testlen"]
    closest = min((abs(reference - length), reference) for reference in counted["reflen"])[1]
    return [length, closest, *counted["guess"], *counted["correct"]]
