"""Beam search over a batch of images at once; with one beam it is greedy decoding.

Each step extends every live beam of an image by every word and keeps the W likeliest of these candidates.
Those that end with <eos> leave the beam for the pool of finished captions, which keeps the W best; the
others stay live. After `max_length` words only <eos> may follow, so every caption is a whole sentence with
its true probability, and there always is one.

The score of a caption is log P / length ** length_penalty; the length counts its words and <eos>. Log
probabilities only fall, so a live beam of log probability s can at most reach s / (max_length + 1) **
length_penalty. Once no live beam of any image can beat the worst of a full pool the search stops, with
nothing lost.

Dimensions: B images, W beams, V vocabulary, P grid cells, E encoder width, L = max_length + 1 tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from imgcap.models import Decoder
from imgcap.types import EOS, PAD, SOS


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

    parent_BW: torch.Tensor
    token_BW: torch.Tensor
    attention_BWP: torch.Tensor | None


class _Pool(NamedTuple):
    """The finished captions: normalised score, the step that ended each, its slot in that step."""

    score_BW: torch.Tensor
    step_BW: torch.Tensor
    slot_BW: torch.Tensor

    def merge(self, score_BW: torch.Tensor, step: int) -> "_Pool":
        """Take in what slot w ended at this step (-inf: nothing) and keep the W best."""
        beams = score_BW.shape[1]
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

    The decoder should be in eval mode. Beyond the exit test nothing in a step waits for the device.
    """
    assert beam >= 1 and max_length >= 1, "a search needs a beam and a length"
    images, device = len(features_BPE), features_BPE.device
    never = torch.tensor(forbidden, device=device)
    state = decoder.init(features_BPE, 1)  # all beams begin as one
    token_BW = torch.full((images, 1), SOS, device=device)
    live_BW = torch.zeros(images, 1, device=device)
    nothing_BW = torch.zeros(images, beam, dtype=torch.int64, device=device)
    pool = _Pool(live_BW.expand(-1, beam) - torch.inf, nothing_BW, nothing_BW)
    history: list[_Step] = []
    for step in range(max_length + 1):
        logits_BWV, state, attention_BWP = decoder.step(state, token_BW)
        log_probs_BWV = logits_BWV.to(torch.promote_types(logits_BWV.dtype, torch.float32)).log_softmax(-1)
        if step < max_length:
            log_probs_BWV.index_fill_(-1, never, -torch.inf)
            live_BW, parent_BW, token_BW = _extend(live_BW, log_probs_BWV, beam)
        else:
            live_BW, parent_BW, token_BW = _end(live_BW, log_probs_BWV)
        history.append(_Step(parent_BW, token_BW, attention_BWP if attention else None))
        ended_BW = token_BW == EOS
        pool = pool.merge((live_BW / (step + 1) ** length_penalty).masked_fill(~ended_BW, -torch.inf), step)
        live_BW = live_BW.masked_fill(ended_BW, -torch.inf)
        within_reach_B = live_BW.amax(1) / (max_length + 1) ** length_penalty
        if bool((within_reach_B <= pool.score_BW.amin(1)).all()):
            break
        state = state.reorder(parent_BW)
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
        parent_BW, token_BW, attention_BWP = history[step]
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
