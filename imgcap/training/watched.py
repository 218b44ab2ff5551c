"""What to watch of the captions that self-critical training draws: their rewards, and the ways in which they go wrong.

Dimensions: N images, S samples of each, L words of the longest caption, V vocabulary.
"""

import numpy as np
import torch

from imgcap.evaluation.metrics.endings import cannot_end, knows_endings
from imgcap.evaluation.metrics.languages import without_punctuation
from imgcap.ranks.collectives import sum_across_ranks
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import SPECIAL_TOKENS

_SUMS = (
    "captions",
    "reward",
    "squared",
    "baseline",
    "advantage",
    "bad_endings",
    "words",
    "repeats",
    "images",
    "distinct",
    "kl",  # new ones come last: a checkpoint may have fewer
)


class Watched:
    """Sums over drawn captions since the last log, of this rank."""

    def __init__(self, vocabulary: Vocabulary, language: str, device: torch.device):
        words = vocabulary.words
        self.device, self.knows_endings, self.size = device, knows_endings(language), len(words)
        self._punctuation_V = np.array([not without_punctuation([word]) for word in words])
        self._cannot_end_V = np.array([cannot_end(word, language) for word in words])
        self.sums = np.zeros(len(_SUMS))

    def add(
        self,
        samples_NSL: np.ndarray,
        reward_NS: np.ndarray,
        baseline_NS: np.ndarray,
        advantage_NS: np.ndarray,
        gone_NS: np.ndarray,
    ) -> None:
        """Count captions (words, <eos>, <pad>) with their rewards, and how much likelier each is than at the start."""
        words_NSL = samples_NSL >= len(SPECIAL_TOKENS)
        pairs_NX = ngrams(samples_NSL, words_NSL, 2, self.size).reshape(len(samples_NSL), -1)
        different_N, all_N = distinct(pairs_NX)
        triples_NSX = ngrams(samples_NSL, words_NSL, 3, self.size)
        different_NS, all_NS = distinct(triples_NSX)
        self.sums += (
            reward_NS.size,
            reward_NS.sum(),
            np.square(reward_NS).sum(),
            baseline_NS.sum(),
            np.square(advantage_NS).sum(),
            self._end_badly(samples_NSL, words_NSL).sum(),
            words_NSL.sum(),
            (different_NS < all_NS).sum(),
            len(samples_NSL),
            (different_N / np.maximum(all_N, 1)).sum(),
            gone_NS.sum(),
        )

    def total_reward(self) -> torch.Tensor:
        """The sum of this rank's rewards since the last log, and their number."""
        return self._tensor(self.sums[[_SUMS.index("reward"), _SUMS.index("captions")]])

    def read(self) -> dict[str, float]:
        """Read the means since the last reading over all ranks, which call together; then start anew."""
        total = dict(zip(_SUMS, sum_across_ranks(self._tensor(self.sums)).tolist(), strict=True))
        self.sums[:] = 0
        captions, images = max(total["captions"], 1), max(total["images"], 1)
        mean = total["reward"] / captions
        values = {
            "sampled/reward": mean,
            "sampled/reward_spread": max(total["squared"] / captions - mean**2, 0.0) ** 0.5,
            "sampled/baseline": total["baseline"] / captions,
            "sampled/advantage": (total["advantage"] / captions) ** 0.5,
            "sampled/bad_endings": total["bad_endings"] / captions,
            "sampled/length": total["words"] / captions,
            "sampled/repeats": total["repeats"] / captions,
            "sampled/distinct_2": total["distinct"] / images,
            "sampled/kl": total["kl"] / captions,
        }
        return values if self.knows_endings else {k: v for k, v in values.items() if k != "sampled/bad_endings"}

    def state(self, is_main: bool) -> torch.Tensor:
        """Sums of all ranks for a checkpoint. They move to rank 0, so that nothing counts twice."""
        total = sum_across_ranks(self._tensor(self.sums)).cpu()
        self.sums = total.double().numpy().copy() if is_main else np.zeros(len(_SUMS))
        return total

    def load_state(self, sums: torch.Tensor, is_main: bool) -> None:
        self.sums = np.zeros(len(_SUMS))
        if is_main:
            self.sums[: len(sums)] = sums.double().numpy()

    def _end_badly(self, samples_NSL: np.ndarray, words_NSL: np.ndarray) -> np.ndarray:
        """Which captions, of their words without punctuation, have none or end with one that needs another."""
        kept_NSL = words_NSL & ~self._punctuation_V[samples_NSL]
        last_NS1 = kept_NSL.shape[-1] - 1 - kept_NSL[..., ::-1].argmax(-1)[..., None]
        last_NS = np.take_along_axis(samples_NSL, last_NS1, -1)[..., 0]
        return ~kept_NSL.any(-1) | self._cannot_end_V[last_NS]

    def _tensor(self, sums: np.ndarray) -> torch.Tensor:
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.tensor(sums, dtype=exact, device=self.device)


def ngrams(samples_NSL: np.ndarray, words_NSL: np.ndarray, order: int, size: int) -> np.ndarray:
    """Number the n-grams of words at each place, of a vocabulary of `size` entries; -1 where none begins."""
    places = samples_NSL.shape[-1] - order + 1
    codes, whole = np.zeros(1, np.int64), np.ones(1, bool)
    for place in range(order):
        here = slice(place, max(places, 0) + place)
        codes, whole = codes * size + samples_NSL[..., here], whole & words_NSL[..., here]
    return np.where(whole, codes, -1)


def distinct(codes_NX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the different codes of each row, and all of them; -1 is none."""
    sorted_NX = np.sort(codes_NX, axis=-1)
    first_NX = np.diff(sorted_NX, axis=-1, prepend=-1) != 0
    return (first_NX & (sorted_NX >= 0)).sum(-1), (codes_NX >= 0).sum(-1)
