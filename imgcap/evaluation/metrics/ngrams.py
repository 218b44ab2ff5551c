"""N-grams of words as numbers, of many captions at once.

An n-gram is known by its prefix, the n-gram without its last word, and that word: a key of 64 bits, exact for a
vocabulary of any size. All the n-grams that occur in some captions are numbered; those of other captions are looked up.

Dimensions: N captions, T words of all captions side by side, O orders of n-grams, M different n-grams.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

ORDERS = 4  # n-grams of one to four words
UNKNOWN = -1
_MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Knuth's multiplicative hashing


class Texts(NamedTuple):
    """Captions as words side by side, each a number from 0 to 2^32 - 1."""

    words_T: np.ndarray
    lengths_N: np.ndarray

    @property
    def owners_T(self) -> np.ndarray:
        """The number of the caption that a word stands in."""
        return np.repeat(np.arange(len(self.lengths_N)), self.lengths_N)

    @property
    def remaining_T(self) -> np.ndarray:
        """How many words of the caption come from a word on: an n-gram of up to so many begins there."""
        return np.repeat(np.cumsum(self.lengths_N), self.lengths_N) - np.arange(len(self.words_T))


class NgramTable:
    """The numbers of n-grams, in arrays that processes may share: a hash table whose buckets lie side by side."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.keys_M, self.ids_M, self.buckets = arrays["keys"], arrays["ids"], arrays["buckets"]
        self._shift = np.uint64(64 - (len(self.buckets) - 1).bit_length() + 1)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What `__init__` takes."""
        return {"keys": self.keys_M, "ids": self.ids_M, "buckets": self.buckets}

    @classmethod
    def of(cls, texts: Texts) -> tuple[Self, np.ndarray]:
        """Number all n-grams of captions, and return `ids_OT` of those that begin at each word (UNKNOWN: none).

        The numbers are a function of the set of n-grams alone: by order, prefix and word.
        """
        ids_OT = np.full((ORDERS, len(texts.words_T)), UNKNOWN, np.int32)
        keys: list[np.ndarray] = []
        at, prefixes, numbered = np.flatnonzero(texts.remaining_T > 0), np.full(len(texts.words_T), UNKNOWN), 0
        for order in range(ORDERS):
            at = at[texts.remaining_T[at] > order]
            distinct, places = np.unique(_keys(prefixes[at], texts.words_T[at + order]), return_inverse=True)
            ids_OT[order, at] = places + numbered
            keys.append(distinct)
            prefixes, numbered = ids_OT[order], numbered + len(distinct)
        keys_M = np.concatenate(keys)
        bits = np.uint64(max(numbered - 1, 1).bit_length())
        buckets_M = _hashed(keys_M, np.uint64(64) - bits)
        ids_M = np.argsort(buckets_M, kind="stable").astype(np.int32)
        sizes = np.bincount(buckets_M, minlength=1 << int(bits))
        buckets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return cls({"keys": keys_M[ids_M], "ids": ids_M, "buckets": buckets}), ids_OT

    def look_up(self, texts: Texts, remaining_T: np.ndarray) -> np.ndarray:
        """Find `ids_OT` of the n-grams that begin at each word: UNKNOWN where there is none or it is in no caption."""
        ids_OT = np.full((ORDERS, len(texts.words_T)), UNKNOWN, np.int32)
        at, prefixes = np.arange(len(texts.words_T)), np.full(len(texts.words_T), UNKNOWN, np.int32)
        for order in range(ORDERS):
            ids = self._find(_keys(prefixes, texts.words_T[at + order]))
            ids_OT[order, at] = ids
            longer = np.flatnonzero((ids != UNKNOWN) & (remaining_T[at] > order + 1))
            at, prefixes = at[longer], ids[longer]
        return ids_OT

    def _find(self, keys_Q: np.ndarray) -> np.ndarray:
        ids_Q = np.full(len(keys_Q), UNKNOWN, np.int32)
        bucket_Q = _hashed(keys_Q, self._shift)
        at, end = self.buckets[bucket_Q], self.buckets[bucket_Q + 1]
        wanted, places = keys_Q, np.arange(len(keys_Q))
        while len(places):
            within = np.flatnonzero(at < end)
            at, end, wanted, places = at[within], end[within], wanted[within], places[within]
            equal = self.keys_M[at] == wanted
            ids_Q[places[equal]] = self.ids_M[at[equal]]
            others = np.flatnonzero(~equal)
            at, end, wanted, places = at[others] + 1, end[others], wanted[others], places[others]
        return ids_Q


def occurrences(texts: Texts, remaining_T: np.ndarray) -> np.ndarray:
    """Count how often the caption has the n-gram that begins at a word, `counts_OT`: 0 wherever it isn't the first."""
    counts_OT = (remaining_T > np.arange(ORDERS)[:, None]).astype(np.int32)
    first, later = _repeated(texts)
    for order in range(ORDERS):
        long_enough = remaining_T[later] > order
        first, later = first[long_enough], later[long_enough]
        same = texts.words_T[first + order] == texts.words_T[later + order]
        first, later = first[same], later[same]
        counts_OT[order] += np.bincount(first, minlength=len(texts.words_T)).astype(np.int32)
        counts_OT[order, later] = 0
    return counts_OT


def _repeated(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of places at which a caption has the same word: the earlier ones, the later ones."""
    longest = int(texts.lengths_N.max(initial=0))
    words_NL = np.tile(-1 - np.arange(longest), (len(texts.lengths_N), 1))  # what isn't there equals nothing
    words_NL[np.arange(longest) < texts.lengths_N[:, None]] = texts.words_T
    same_NLL = words_NL[:, :, None] == words_NL[:, None, :]
    same_NLL &= np.tri(longest, k=-1, dtype=bool)
    row, first = np.divmod(np.flatnonzero(same_NLL), max(longest, 1))
    caption, later = np.divmod(row, max(longest, 1))
    starts = (np.cumsum(texts.lengths_N) - texts.lengths_N)[caption]
    return starts + first, starts + later


def _keys(prefixes: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The keys of n-grams; the prefix of a single word is UNKNOWN."""
    return (prefixes.astype(np.int64) + 1 << 32 | words.astype(np.int64)).astype(np.uint64)


def _hashed(keys: np.ndarray, shift: np.uint64) -> np.ndarray:
    return (keys * _MIXER >> shift).astype(np.int64)
