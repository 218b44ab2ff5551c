"""The references of images as arrays, and what captions have in common with those of their image.

Dimensions: N captions, T words of all captions side by side, O orders of n-grams, M different n-grams, I images, R
references of all images side by side, E entries: an n-gram of a reference, with its count; C comparisons: a caption
with a reference of its image; H hits: an n-gram of a caption that its image's references have; X a hit in each
reference that has it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from imgcap.evaluation.metrics.ngrams import ORDERS, UNKNOWN, NgramTable, Texts, occurrences
from imgcap.evaluation.metrics.tf_idf import Weighting
from imgcap.files.kept import content_hash

MOST_REFERENCES = 1 << 16  # of an image
_IMAGES = 4096  # whose entries are sorted at once
_CAPTIONS, _PAIRS = 512, 1 << 20  # captions that are compared at once, at most, and pairs of words in them


@dataclass(frozen=True)
class Comparison:
    """Captions beside the references of their images."""

    texts: Texts
    owners_T: np.ndarray  # the caption that a word stands in
    ids_OT: np.ndarray  # the n-gram that begins at a word
    counts_OT: np.ndarray  # how often the caption has it; 0 wherever it isn't the first
    first_C: np.ndarray  # of each caption the first comparison, and at the end their number
    reference_C: np.ndarray
    caption_H: np.ndarray
    order_H: np.ndarray  # 0 of single words
    id_H: np.ndarray
    count_H: np.ndarray  # how often the caption has the n-gram
    most_H: np.ndarray  # how often the reference has it that has it most often
    hit_X: np.ndarray
    comparison_X: np.ndarray
    count_X: np.ndarray  # how often the reference has it

    @property
    def caption_C(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.first_C) - 1), np.diff(self.first_C))


class KnownReferences:
    """The n-grams of references: document frequencies, and the entries of each image, by n-gram and reference."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        """Take the arrays of `known_arrays`, which may be mapped from a file."""
        self.table = NgramTable(arrays)
        self.first_reference_I, self.first_entry_I = arrays["first_reference"], arrays["first_entry"]
        self.lengths_R, self.norms_RO = arrays["reference_lengths"], arrays["reference_norms"]
        self.id_E, self.reference_E, self.count_E = (arrays[f"entry_{name}"] for name in _ENTRY)
        self.longest = int(self.lengths_R.max(initial=0))
        self.weighting = Weighting(arrays["frequency"], len(self.first_entry_I) - 1)

    @classmethod
    def of(cls, texts: Texts, references_I: np.ndarray) -> Self:
        """Count references; see `known_arrays`."""
        return cls(known_arrays(texts, references_I))

    def comparisons(self, images_N: np.ndarray, texts: Texts) -> Iterator[tuple[slice, Comparison]]:
        """Compare captions with their images' references, some at once; yield which they are, too."""
        start, word = 0, 0
        while start < len(images_N):
            count = min(_CAPTIONS, len(images_N) - start)
            while count > 1 and count * int(texts.lengths_N[start : start + count].max()) ** 2 > _PAIRS:
                count //= 2
            some, lengths_N = slice(start, start + count), texts.lengths_N[start : start + count]
            words = int(lengths_N.sum())
            yield some, self.compare(images_N[some], Texts(texts.words_T[word : word + words], lengths_N))
            start, word = start + count, word + words

    def compare(self, images_N: np.ndarray, texts: Texts) -> Comparison:
        """Find the n-grams of captions in the references of their images, which are given by their places."""
        remaining_T, owners_T = texts.remaining_T, texts.owners_T
        ids_OT, counts_OT = self.table.look_up(texts, remaining_T), occurrences(texts, remaining_T)
        images, place_N = np.unique(images_N, return_inverse=True)  # several captions of an image share its entries
        first, last = self.first_entry_I[images], self.first_entry_I[images + 1]
        entries = _ranges(first, last)
        keys = np.repeat(np.arange(len(images)), last - first) << 32 | self.id_E[entries]
        start = np.flatnonzero(np.diff(keys, prepend=-1))  # of the entries with the same n-gram of the same image
        end, keys, most = (
            np.append(start[1:], len(keys)),
            keys[start],
            np.maximum.reduceat(self.count_E[entries], start),
        )

        order, place = np.nonzero((ids_OT != UNKNOWN) & (counts_OT > 0))
        wanted = place_N[owners_T[place]] << 32 | ids_OT[order, place]
        found = np.searchsorted(keys, wanted)
        hits = np.flatnonzero(np.append(keys, -1)[found] == wanted)
        found, order_H, place_H = found[hits], order[hits], place[hits]

        first, last = self.first_reference_I[images_N], self.first_reference_I[images_N + 1]
        first_C = np.concatenate([[0], np.cumsum(last - first)])
        caption_H = owners_T[place_H]
        hit_X = np.repeat(np.arange(len(hits)), end[found] - start[found])
        entry_X = entries[_ranges(start[found], end[found])]
        return Comparison(
            texts=texts,
            owners_T=owners_T,
            ids_OT=ids_OT,
            counts_OT=counts_OT,
            first_C=first_C,
            reference_C=_ranges(first, last),
            caption_H=caption_H,
            order_H=order_H,
            id_H=ids_OT[order_H, place_H],
            count_H=counts_OT[order_H, place_H],
            most_H=most[found],
            hit_X=hit_X,
            comparison_X=first_C[caption_H[hit_X]] + self.reference_E[entry_X],
            count_X=self.count_E[entry_X],
        )


_ENTRY = ("ids", "references", "counts")


def known_arrays(texts: Texts, references_I: np.ndarray) -> dict[str, np.ndarray]:
    """Count the references of images, all in `texts`: so many of the first image, of the second ..."""
    assert references_I.min(initial=1) > 0 and references_I.max(initial=0) < MOST_REFERENCES
    table, ids_OT = NgramTable.of(texts)
    counts_OT, frequency_M = np.zeros(ids_OT.shape, np.int32), np.zeros(len(table.ids_M), np.int32)
    first_reference = np.concatenate([[0], np.cumsum(references_I)])
    entries: list[list[np.ndarray]] = []
    sizes = [np.zeros(1, np.int64)]
    for start in range(0, len(references_I), _IMAGES):
        image, *entry = _entries(texts, first_reference[start : start + _IMAGES + 1], ids_OT, counts_OT)
        is_new = (np.diff(image, prepend=-1) != 0) | (np.diff(entry[0], prepend=-1) != 0)
        np.add.at(frequency_M, entry[0][is_new], 1)
        sizes.append(np.bincount(image, minlength=min(_IMAGES, len(references_I) - start)))
        entries.append(entry)
    weighting, owners_T, captions = Weighting(frequency_M, len(references_I)), texts.owners_T, len(texts.lengths_N)
    norms = [
        weighting.norms(ids_OT[order], counts_OT[order], owners_T, captions)
        for order in (slice(order, order + 1) for order in range(ORDERS))  # each by itself, for less memory
    ]
    return table.arrays | {
        "frequency": frequency_M,  # images whose references have the n-gram
        "first_reference": first_reference,
        "first_entry": np.cumsum(np.concatenate(sizes)),
        "reference_lengths": texts.lengths_N.astype(np.int32),
        "reference_norms": np.concatenate(norms, axis=1),
        **{f"entry_{name}": _smallest(parts) for name, parts in zip(_ENTRY, zip(*entries, strict=True), strict=True)},
    }


def frequencies_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of document frequencies: of all n-grams, the images that have each, and the number of images."""
    parts = (arrays[name].tobytes() for name in ("keys", "ids", "frequency"))
    return content_hash(*parts, str(len(arrays["first_entry"]) - 1).encode())


def _entries(texts: Texts, first_R: np.ndarray, ids_OT: np.ndarray, counts_OT: np.ndarray) -> list[np.ndarray]:
    """The entries of some images, by image, n-gram and reference, as these and counts; it fills their `counts_OT`."""
    before = int(texts.lengths_N[: first_R[0]].sum())
    lengths = texts.lengths_N[first_R[0] : first_R[-1]]
    within = slice(before, before + int(lengths.sum()))
    images = np.repeat(np.arange(len(first_R) - 1), np.diff(first_R))
    references = np.arange(first_R[0], first_R[-1]) - first_R[images]
    ids = ids_OT[:, within].astype(np.int64)
    at_OT = np.nonzero(ids != UNKNOWN)
    keys_T = np.repeat(images << 48 | references, lengths)
    keys, first, counts = np.unique(keys_T[at_OT[1]] | ids[at_OT] << 16, return_index=True, return_counts=True)
    counts_OT[:, within][at_OT[0][first], at_OT[1][first]] = counts
    return [
        keys >> 48,
        (keys >> 16 & 0xFFFFFFFF).astype(np.int32),
        (keys & 0xFFFF).astype(np.uint16),
        counts.astype(np.int32),
    ]


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All numbers of several ranges, side by side."""
    sizes = ends - starts
    total = np.cumsum(sizes)
    return np.repeat(starts - total + sizes, sizes) + np.arange(total[-1] if len(total) else 0)


def _smallest(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Numbers in the smallest type that holds them all."""
    most = max((int(part.max(initial=0)) for part in parts), default=0)
    return np.concatenate([part.astype(np.min_scalar_type(most)) for part in parts])
