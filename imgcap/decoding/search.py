"""Search over a batch of images at once: one loop for every way of choosing what lives on.

Each step gives every live row of an image every word to follow, and its frontier keeps some of these candidates; plain
beam search keeps the W likeliest, with one beam it is greedy decoding. Those that end with <eos> leave for a pool of
finished captions, which keeps the best; the others stay live. After `max_length` words only <eos> may follow, so every
caption is a whole sentence with its true probability, and there always is one.

The score of a caption is log P / length ** length_penalty; the length counts its words and <eos>. Log
probabilities only fall, so a live row of log probability s can at most reach s / (max_length + 1) **
length_penalty. Once no live row of an image can beat the worst of its full pool the image is done, with nothing
lost. The search goes on with the others alone as soon as a quarter of its images is done.

docs/decoding.md follows the search of two images row by row.

Dimensions: B images, R images still searched, W rows (beams) of each, T words so far, V vocabulary, P grid cells,
E encoder width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Frontier, Likeliest, Prefixes
from imgcap.decoding.hypotheses import Hypotheses, Pool, Step, trace
from imgcap.models.decoders.base import Decoder
from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.types import EOS, PAD, SOS

SHRINK = 0.75  # of a search's images: when no more are left to search, those done leave it


def beam_search(
    decoder: Decoder,
    features_BPE: Tensor,
    beam: int,
    max_length: int,
    length_penalty: float = 1.0,
    attention: bool = False,
    forbidden: Sequence[int] = (PAD, SOS),
) -> Hypotheses:
    """Find the likeliest captions of at most `max_length` words; `forbidden` tokens never appear in one."""
    assert beam >= 1, "a search needs a beam"
    constraints = Constraints(torch.tensor(forbidden, device=features_BPE.device))
    ensemble, frontier = Ensemble([decoder]), Likeliest(beam)
    return search(ensemble, [features_BPE], frontier, constraints, max_length, length_penalty, attention)


@torch.no_grad()
def search(
    ensemble: Ensemble,
    features_BPE: Sequence[Tensor],
    frontier: Frontier,
    constraints: Constraints,
    max_length: int,
    length_penalty: float,
    attention: bool,
) -> Hypotheses:
    """Caption images of which `features_BPE` holds features for each decoder; these should be in eval mode.

    Nothing in a step waits for the device but the test how many images are left, and, seldom, which.
    """
    assert max_length >= 1, "a search needs a length"
    images, device = len(features_BPE[0]), features_BPE[0].device
    state = ensemble.init(features_BPE, frontier.rows, max_length + 1)
    images_R = torch.arange(images, device=device)
    # All beams would begin alike, so W is 1 (one a group or a bank) until the first choice makes it the whole beam.
    live_RW = frontier.begin(images, device)
    token_RW = torch.full_like(live_RW, SOS, dtype=torch.int64)
    reads_words = frontier.reads_words or constraints.no_repeat_ngram > 0
    words_RWT = token_RW.new_empty(*token_RW.shape, 0) if reads_words else None
    pool = Pool.empty(images, frontier.pools, frontier.pool_size, device)
    history: list[Step] = []
    for step in range(max_length + 1):
        logits_RWV, state, attention_RWP = ensemble.step(state, token_RW)
        log_probs_RWV = logits_RWV.to(exact_dtype(logits_RWV.dtype)).log_softmax(-1)
        if step < max_length:
            constraints.forbid_(log_probs_RWV, step, words_RWT)
            prefixes = Prefixes(step, images_R, live_RW, words_RWT)
            live_RW, parent_RW, token_RW = frontier.extend_(prefixes, log_probs_RWV)
        else:  # every live row ends
            parent_RW = torch.arange(live_RW.shape[1], device=device).expand_as(live_RW)
            live_RW, token_RW = live_RW + log_probs_RWV[..., EOS], torch.full_like(parent_RW, EOS)
        history.append(Step(images_R, parent_RW, token_RW, attention_RWP if attention else None))
        ended_RW = token_RW == EOS
        finished_RW = (live_RW / (step + 1) ** length_penalty).masked_fill(~ended_RW, -torch.inf)
        pool = pool.merge(images_R, finished_RW, step)
        live_RW = live_RW.masked_fill(ended_RW, -torch.inf)
        open_R = pool.is_open(images_R, live_RW / (max_length + 1) ** length_penalty)
        remaining = int(open_R.sum())
        if not remaining:
            break
        state = state.reorder(parent_RW)
        if words_RWT is not None:
            words_RWT = torch.cat([words_RWT.take_along_dim(parent_RW[..., None], 1), token_RW[..., None]], dim=2)
        if remaining <= SHRINK * len(images_R):
            kept_R = open_R.nonzero().squeeze(1)
            images_R, token_RW, live_RW = (x.index_select(0, kept_R) for x in (images_R, token_RW, live_RW))
            words_RWT = None if words_RWT is None else words_RWT.index_select(0, kept_R)
            state = state.select(kept_R)
    return trace(pool, history, max_length + 1)
