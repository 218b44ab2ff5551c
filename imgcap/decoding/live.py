"""The images that a search still searches, and the one step that every search is made of.

All that a step reads and writes is in `Live`, as tensors whose shapes stay. The number of words said is a tensor too,
and nothing is read on the host: a graph can hold the step.

Dimensions: R images still searched, W rows (beams) of each, G pools of an image and K captions in each, V vocabulary,
P grid cells, E encoder width, L tokens of the longest caption, X what is known of a token (`Pool`).
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble, EnsembleState
from imgcap.decoding.frontier import Chosen, Frontier, Prefixes
from imgcap.decoding.hypotheses import Pool, go_on
from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.types import EOS, PAD, SOS


class Live(NamedTuple):
    """A search between two steps. A row of log probability -inf is none."""

    constraints: Constraints
    frontier: Frontier
    divisor_L: Tensor  # what log P of a caption that ends with each token is divided by; float64
    step: Tensor  # how many tokens each row has; 0-D
    images_R: Tensor  # whose rows these are
    state: EnsembleState
    token_RW: Tensor  # the last
    log_prob_RW: Tensor
    said_RWLX: Tensor
    pool: Pool

    def open(self) -> Tensor:
        """Whether a row of an image can still beat the worst of its pool; shape (R,)."""
        return self.pool.is_open(self.log_prob_RW / self.divisor_L[-1])

    def select(self, images_S: Tensor) -> "Live":
        """Go on with some of the images, in this order."""
        tensors = {name: getattr(self, name) for name in ("images_R", "token_RW", "log_prob_RW", "said_RWLX")}
        return self._replace(
            **{name: x.index_select(0, images_S) for name, x in tensors.items()},
            frontier=self.frontier.select(images_S),
            state=self.state.select(images_S),
            pool=self.pool.select(images_S),
        )


def begin(
    ensemble: Ensemble,
    features_BPE: Sequence[Tensor],
    frontier: Frontier,
    constraints: Constraints,
    max_length: int,
    length_penalty: float,
    attention: bool,
    *,
    whole_beam: bool = False,
) -> Live:
    """Begin captions of at most `max_length` words.

    All beams would begin alike, so an image has one row (one a group or a bank) until the first choice makes it the
    whole beam. With `whole_beam` it has all of them, those beyond the first none.
    """
    device, length = features_BPE[0].device, max_length + 1
    pools, size = frontier.pools, frontier.pool_size
    log_prob_RW = frontier.begin(len(features_BPE[0]), device)
    images, rows = log_prob_RW.shape
    if whole_beam:
        log_prob_RW = F.pad(log_prob_RW[..., None], (0, size - 1), value=-torch.inf).flatten(1)
    state = ensemble.init(features_BPE, log_prob_RW.shape[1], length)
    dtypes = (x.dtype for x in tree_leaves(state) if isinstance(x, Tensor) and x.is_floating_point())
    log_prob_RW = log_prob_RW.to(reduce(torch.promote_types, dtypes, torch.float32))
    token_RW = torch.full_like(log_prob_RW, SOS, dtype=torch.int64)
    seen_RLWP = None
    if attention and ensemble.attends:
        seen_RLWP = log_prob_RW.new_zeros(images, length, rows * size, features_BPE[0].shape[1])
    known = 1 if seen_RLWP is None else 2
    score_RGK = log_prob_RW.new_full((images, pools, size), -torch.inf)
    return Live(
        constraints,
        frontier,
        torch.tensor([(step + 1) ** length_penalty for step in range(length)], dtype=torch.float64, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
        torch.arange(images, device=device),
        state,
        token_RW,
        log_prob_RW,
        token_RW.new_full((*token_RW.shape, length, known), PAD),
        Pool(score_RGK, token_RW.new_full((*score_RGK.shape, length, known), PAD), seen_RLWP),
    )


def advance(live: Live, ensemble: Ensemble, last: bool) -> Live:
    """Give every row a token; the `last` one is the end. What the rows saw is noted in place."""
    logits_RWV, state, attention_RWP = ensemble.step(live.state, live.token_RW)
    log_probs_RWV = logits_RWV.log_softmax(-1, dtype=exact_dtype(logits_RWV.dtype))
    if last:
        chosen = _end(live.log_prob_RW, log_probs_RWV)
    else:
        live.constraints.forbid_(log_probs_RWV, live.step, live.said_RWLX[..., 0])
        prefixes = Prefixes(live.step, live.log_prob_RW, live.said_RWLX[..., 0])
        chosen = live.frontier.extend_(prefixes, log_probs_RWV)
    log_prob_RW, parent_RW, token_RW = chosen
    live.pool.see_(live.step, attention_RWP)
    said_RWLX = go_on(live.said_RWLX, live.step, parent_RW, token_RW)
    score_RW = (log_prob_RW / live.divisor_L.take(live.step)).masked_fill_(token_RW != EOS, -torch.inf)
    return live._replace(
        step=live.step + 1,
        state=state if last else state.reorder(parent_RW),
        token_RW=token_RW,
        log_prob_RW=log_prob_RW.masked_fill_(token_RW == EOS, -torch.inf),
        said_RWLX=said_RWLX,
        pool=live.pool.merge(score_RW, said_RWLX),
    )


def _end(log_prob_RW: Tensor, log_probs_RWV: Tensor) -> Chosen:
    parent_RW = torch.arange(log_prob_RW.shape[1], device=log_prob_RW.device).expand_as(log_prob_RW)
    return Chosen(log_prob_RW + log_probs_RWV[..., EOS], parent_RW, torch.full_like(parent_RW, EOS))
