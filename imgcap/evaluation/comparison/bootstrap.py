"""The paired bootstrap over images (Koehn 2004): how a difference of two scores varies with the images drawn.

A resample draws as many images as there are, with replacement, the same for both sides. BLEU is computed anew from
the counts that the drawn images add up to; CIDEr and ROUGE-L are means of the images' own scores, where the words'
weights in CIDEr stay those of the whole set.

Dimensions: N images, R resamples, S counts of an image, M metrics.
"""

from dataclasses import dataclass

import numpy as np

from imgcap.evaluation.metrics.bleu import ORDERS, bleu_of_counts
from imgcap.evaluation.metrics.scorers import Scored

MEANS = ("ROUGE-L", "CIDEr")  # of the images' own scores
METRICS = (*(f"BLEU-{n}" for n in range(1, ORDERS + 1)), *MEANS)
_CHUNK = 2**22  # draws held at once: 32 MB


@dataclass(frozen=True)
class Difference:
    """B's score less A's, the interval that holds 95 % of the resamples, and in which share of them B is better."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    b_wins: float  # equal scores count half

    @property
    def covers_zero(self) -> bool:
        return self.low <= 0 <= self.high


def differences(a: Scored, b: Scored, resamples: int = 2000, seed: int = 0) -> dict[str, Difference]:
    """Bootstrap each metric's difference. Both sides have scored the same images, in one order, with all METRICS."""
    assert list(a.images) == list(b.images), "the sides have scored other images"
    sides = [
        (side.counts_NS.astype(np.float64), np.array([[own[name] for name in MEANS] for own in side.images.values()]))
        for side in (a, b)
    ]
    images = len(a.images)
    random = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, step := max(_CHUNK // images, 1)):
        rows = min(step, resamples - start)
        times_RN = random.multinomial(images, np.full(images, 1 / images), size=rows).astype(np.float64)
        scores = [np.hstack([bleu_of_counts(times_RN @ counts), times_RN @ means / images]) for counts, means in sides]
        drawn.append(scores[1] - scores[0])
    difference_RM = np.round(np.concatenate(drawn), 9)  # below that, sums in another order differ
    low_M, high_M = np.percentile(difference_RM, [2.5, 97.5], axis=0)
    wins_M = np.mean((difference_RM > 0) + 0.5 * (difference_RM == 0), axis=0)
    return {
        name: Difference(a.scores[name], b.scores[name], b.scores[name] - a.scores[name], *map(float, varied))
        for name, *varied in zip(METRICS, low_M, high_M, wins_M, strict=True)
    }
