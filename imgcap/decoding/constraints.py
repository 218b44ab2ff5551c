"""What a caption may not say: words that are banned, an end too soon, n words in a row for the second time.

Dimensions: R images still searched, W rows of each, L words of the longest caption (those to come are <pad>),
V vocabulary, N words of an n-gram.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imgcap.models.kernels.trees import Tree
from imgcap.types import EOS, PAD


@dataclass(frozen=True)
class Constraints(Tree):
    """Bounds on captions: tokens that `never` occur (<pad> is one); lengths and n-grams count words, and 0 is none."""

    never: Tensor
    min_length: int = 0
    no_repeat_ngram: int = 0

    def forbid_(self, log_probs_RWV: Tensor, step: Tensor, words_RWL: Tensor) -> None:
        """Set what may not follow the first `step` words to -inf, in place."""
        log_probs_RWV.index_fill_(-1, self.never, -torch.inf)
        if self.min_length:
            log_probs_RWV[..., EOS].masked_fill_(step < self.min_length, -torch.inf)
        if 0 < self.no_repeat_ngram < words_RWL.shape[2]:
            log_probs_RWV.scatter_(-1, _repeating(words_RWL, step, self.no_repeat_ngram), -torch.inf)


def _repeating(words_RWL: Tensor, step: Tensor, n: int) -> Tensor:
    """Words that would end an n-gram which is there already: those after each earlier copy of the last n - 1.

    Where there is no copy, or only <pad> after it, this names <pad>, which may not follow anyway.
    """
    grams_RWXN = words_RWL.unfold(2, n, 1)
    last_N = (step + torch.arange(1 - n, 0, device=step.device)).clamp_(min=0)
    same_RWX = (grams_RWXN[..., :-1] == words_RWL.index_select(2, last_N)[:, :, None]).all(-1)
    return grams_RWXN[..., -1].where(same_RWX, PAD)
