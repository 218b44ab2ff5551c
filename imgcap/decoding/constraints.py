"""What a caption may not say: words that are banned, an end too soon, n words in a row for the second time.

Dimensions: R images still searched, W rows of each, T words so far, V vocabulary, N words of an n-gram.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imgcap.types import EOS, PAD


@dataclass(frozen=True)
class Constraints:
    """Bounds on captions: tokens that `never` occur (<pad> is one); lengths and n-grams count words, and 0 is none."""

    never: Tensor
    min_length: int = 0
    no_repeat_ngram: int = 0

    def forbid_(self, log_probs_RWV: Tensor, step: int, words_RWT: Tensor | None) -> None:
        """Set what may not follow the words so far to -inf, in place. Only the n-gram block reads the words."""
        log_probs_RWV.index_fill_(-1, self.never, -torch.inf)
        if step < self.min_length:
            log_probs_RWV[..., EOS] = -torch.inf
        if 0 < self.no_repeat_ngram <= step:
            assert words_RWT is not None, "the n-gram block reads the words"
            log_probs_RWV.scatter_(-1, _repeating(words_RWT, self.no_repeat_ngram), -torch.inf)


def _repeating(words_RWT: Tensor, n: int) -> Tensor:
    """Words that would end an n-gram which is there already: those after each earlier copy of the last n - 1.

    Where there is no copy it names <pad>, which may not follow anyway.
    """
    grams_RWXN = words_RWT.unfold(2, n, 1)
    last_RW1N = words_RWT[..., None, words_RWT.shape[2] - (n - 1) :]
    same_RWX = (grams_RWXN[..., :-1] == last_RW1N).all(-1)
    return grams_RWXN[..., -1].where(same_RWX, PAD)
