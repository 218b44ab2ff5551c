"""Beam search over a batch of images at once; with one beam it is greedy decoding.

Each step extends every live beam of an image by every word and keeps the W likeliest of these candidates.
Those that end with <eos> leave the beam for the pool of finished captions, which keeps the W best; the
others stay live. After `max_length` words only <eos> may follow, so every caption is a whole sentence with
its true probability, and there always is one.

The score of a caption is log P / length ** length_penalty; the length counts its words and <eos>. Log
probabilities only fall, so a live beam of log probability s can at most reach s / (max_length + 1) **
length_penalty. Once no live beam of an image can beat the worst of its full pool the image is done, with nothing
lost. The search goes on with the others alone as soon as a quarter of its images is done.

Dimensions: B images, R images still searched, W beams, V vocabulary, P grid cells, E encoder width,
L = max_length + 1 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from imgcap.models import Decoder
from imgcap.ops.dtypes import exact_dtype
from imgcap.types import EOS, PAD, SOS

SHRINK = 0.75  # of a search's images: when no more are left to search, those done leave it


@dataclass(frozen=True)
class Hypotheses:
    """The W best captions of each image, the best first.

    Tokens come without <sos>, with <eos>, then <pad>. Lengths count <eos>. Where an image has fewer possible
    captions than beams, the rest have length 0 and score -inf. The attention is that of the best caption.
    """

    tokens_BWL: torch.Tensor
    scores_BW: torch.Tensor
    lengths_BW: torch.Tensor
    attention_BLP: torch.Tensor | None

    @property
    def tokens_BL(self) -> torch.Tensor:
        return self.tokens_BWL[:, 0]

    @property
    def scores_B(self) -> torch.Tensor:
        return self.scores_BW[:, 0]

    @property
    def lengths_B(self) -> torch.Tensor:
        return self.lengths_BW[:, 0]


class _Step(NamedTuple):
    """What one step chose: for each slot of the new beam its parent, its word, and what the parents saw."""

    images_R: torch.Tensor  # whose these are
    parent_RW: torch.Tensor
    token_RW: torch.Tensor
    attention_RWP: torch.Tensor | None

    def of_all(self, images: int) -> "_Step":
        """With a row for every image; zeros where it was done."""
        if len(self.images_R) == images:
            return self
        parent_BW, token_BW, attention_BWP = (
            None if x is None else x.new_zeros(images, *x.shape[1:]).index_copy(0, self.images_R, x) for x in self[1:]
        )
        assert parent_BW is not None and token_BW is not None
        return _Step(torch.arange(images, device=parent_BW.device), parent_BW, token_BW, attention_BWP)


class _Pool(NamedTuple):
    """The finished captions: normalised score, the step that ended each, its slot in that step."""

    score_BW: torch.Tensor
    step_BW: torch.Tensor
    slot_BW: torch.Tensor

    def merge(self, images_R: torch.Tensor, score_RW: torch.Tensor, step: int) -> "_Pool":
        """Take in what slot w of some images ended at this step (-inf: nothing) and keep the W best."""
        beams = score_RW.shape[1]
        score_BW = torch.full_like(self.score_BW, -torch.inf).index_copy(0, images_R, score_RW)
        scores = torch.cat([self.score_BW, score_BW], dim=1)
        steps = torch.cat([self.step_BW, torch.full_like(self.step_BW, step)], dim=1)
        slots = torch.cat([self.slot_BW, torch.arange(beams, device=scores.device).expand_as(self.slot_BW)], dim=1)
        kept_BW, index_BW = scores.topk(beams, dim=1)
        return _Pool(kept_BW, steps.gather(1, index_BW), slots.gather(1, index_BW))


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    features_BPE: torch.Tensor,
    beam: int,
    max_length: int,
    length_penalty: float = 1.0,
    attention: bool = False,
    forbidden: Sequence[int] = (PAD, SOS),
) -> Hypotheses:
    """Find the likeliest captions of at most `max_length` words; `forbidden` tokens never appear in one.

    The decoder should be in eval mode. Nothing in a step waits for the device but the test how many images are left,
    and, seldom, which.
    """
    assert beam >= 1 and max_length >= 1, "a search needs a beam and a length"
    images, device = len(features_BPE), features_BPE.device
    never = torch.tensor(forbidden, device=device)
    state = decoder.init(features_BPE, 1)  # all beams begin as one
    images_R = torch.arange(images, device=device)
    token_RW = torch.full((images, 1), SOS, device=device)
    live_RW = torch.zeros(images, 1, device=device)
    nothing_BW = torch.zeros(images, beam, dtype=torch.int64, device=device)
    pool = _Pool(live_RW.expand(-1, beam) - torch.inf, nothing_BW, nothing_BW)
    history: list[_Step] = []
    for step in range(max_length + 1):
        logits_RWV, state, attention_RWP = decoder.step(state, token_RW)
        log_probs_RWV = logits_RWV.to(exact_dtype(logits_RWV.dtype)).log_softmax(-1)
        if step < max_length:
            log_probs_RWV.index_fill_(-1, never, -torch.inf)
            live_RW, parent_RW, token_RW = _extend(live_RW, log_probs_RWV, beam)
        else:
            live_RW, parent_RW, token_RW = _end(live_RW, log_probs_RWV)
        history.append(_Step(images_R, parent_RW, token_RW, attention_RWP if attention else None))
        ended_RW = token_RW == EOS
        finished_RW = (live_RW / (step + 1) ** length_penalty).masked_fill(~ended_RW, -torch.inf)
        pool = pool.merge(images_R, finished_RW, step)
        live_RW = live_RW.masked_fill(ended_RW, -torch.inf)
        within_reach_R = live_RW.amax(1) / (max_length + 1) ** length_penalty
        open_R = within_reach_R > pool.score_BW.index_select(0, images_R).amin(1)
        remaining = int(open_R.sum())
        if not remaining:
            break
        state = state.reorder(parent_RW)
        if remaining <= SHRINK * len(images_R):
            kept_R = open_R.nonzero().squeeze(1)
            images_R, token_RW, live_RW = (x.index_select(0, kept_R) for x in (images_R, token_RW, live_RW))
            state = state.select(kept_R)
    return _trace(pool, history, max_length + 1)


def _extend(
    live_BW: torch.Tensor, log_probs_BWV: torch.Tensor, beam: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `beam` likeliest of all live beams × words: log probabilities, parents and words."""
    words = log_probs_BWV.shape[2]
    candidates = log_probs_BWV.add_(live_BW[..., None]).flatten(1)
    if candidates.shape[1] < beam:  # more beams than words, at the first step
        candidates = F.pad(candidates, (0, beam - candidates.shape[1]), value=-torch.inf)
    score_BW, index_BW = candidates.topk(beam, dim=1)
    return score_BW, (index_BW // words).clamp_(max=live_BW.shape[1] - 1), index_BW % words


def _end(live_BW: torch.Tensor, log_probs_BWV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every live beam with <eos> after it."""
    parent_BW = torch.arange(live_BW.shape[1], device=live_BW.device).expand_as(live_BW)
    return live_BW + log_probs_BWV[..., EOS], parent_BW, torch.full_like(parent_BW, EOS)


def _trace(pool: _Pool, history: list[_Step], length: int) -> Hypotheses:
    """Walk the parents back from where each finished caption ended."""
    exists_BW = pool.score_BW > -torch.inf
    last_BW = pool.step_BW.masked_fill(~exists_BW, -1)
    slot_BW = pool.slot_BW
    tokens_BWL = torch.full((*slot_BW.shape, length), PAD, device=slot_BW.device)
    seen: list[torch.Tensor] = []
    for step in reversed(range(len(history))):
        _, parent_BW, token_BW, attention_BWP = history[step].of_all(len(slot_BW))
        inside_BW = step <= last_BW
        tokens_BWL[..., step] = torch.where(inside_BW, token_BW.gather(1, slot_BW), PAD)
        slot_BW = torch.where(inside_BW, parent_BW.gather(1, slot_BW), slot_BW)
        if attention_BWP is not None:
            best_B1P = slot_BW[:, :1, None].expand(-1, -1, attention_BWP.shape[-1])
            seen.append(attention_BWP.gather(1, best_B1P)[:, 0] * inside_BW[:, :1])
    attention_BLP = None
    if seen:
        unused = [torch.zeros_like(seen[0])] * (length - len(seen))
        attention_BLP = torch.stack(seen[::-1] + unused, dim=1)
    return Hypotheses(tokens_BWL, pool.score_BW, last_BW + 1, attention_BLP)
