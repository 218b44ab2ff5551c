"""The tf-idf weights of n-grams and the norms of captions, to the last bit as pycocoevalcap computes them.

Dimensions: N captions, T words of all captions side by side, O orders of n-grams, M different n-grams.
"""

import numpy as np

from imgcap.evaluation.metrics.ngrams import UNKNOWN


class Weighting:
    """How much n-grams weigh: the more, the fewer images have them (`frequency_M`); most where none does."""

    def __init__(self, frequency_M: np.ndarray, images: int):
        self._frequency_M = frequency_M
        self._idf = np.log(float(max(images, 1))) - np.log(np.maximum(np.arange(images + 1.0), 1.0))
        self._squares = _squares(self._idf)

    def idf(self, ids: np.ndarray) -> np.ndarray:
        """The weights, of the same shape, of n-grams that occur once."""
        return self._idf[self._frequencies(ids)]

    def norms(self, ids_OT: np.ndarray, counts_OT: np.ndarray, owners_T: np.ndarray, captions: int) -> np.ndarray:
        """The norms of captions for each order, `norms_NO`, from their n-grams and how often they have each."""
        orders, tokens = ids_OT.shape
        at = np.flatnonzero(counts_OT)
        order, place = np.divmod(at, max(tokens, 1))
        counts, frequencies = counts_OT.ravel()[at], self._frequencies(ids_OT.ravel()[at])
        squares, often = self._squares[frequencies], np.flatnonzero(counts > 1)
        squares[often] = _squares(counts[often] * self._idf[frequencies[often]])
        cells = owners_T[place] * orders + order
        return np.sqrt(np.bincount(cells, squares, minlength=captions * orders)).reshape(captions, orders)

    def _frequencies(self, ids: np.ndarray) -> np.ndarray:
        frequencies = np.zeros(ids.shape, np.int64)
        known = np.nonzero(ids != UNKNOWN)
        frequencies[known] = self._frequency_M[ids[known]]
        return frequencies


def _squares(weights: np.ndarray) -> np.ndarray:
    """Squares by C's `pow`, which is not always `x * x`."""
    return np.array([weight**2.0 for weight in weights.tolist()])
