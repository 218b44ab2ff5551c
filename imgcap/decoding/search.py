"""Search over a batch of images at once: one loop for every way of choosing what lives on.

Each step gives every live row of an image every word to follow, and its frontier keeps some of these candidates; plain
beam search keeps the W likeliest, with one beam it is greedy decoding. Those that end with <eos> leave for a pool of
finished captions, which keeps the best; the others stay live. After `max_length` words only <eos> may follow, so every
caption is a whole sentence with its true probability, and there always is one.

The score of a caption is log P / length ** length_penalty; the length counts its words and <eos>. Log
probabilities only fall, so a live row of log probability s can at most reach s / (max_length + 1) **
length_penalty. Once no live row of an image can beat the worst of its full pool the image is done, with nothing
lost. The search goes on with the others alone as soon as a quarter of its images is done; on a GPU, where the steps are
captured (`imgcap.decoding.captured`), as soon as half are, and it looks only once in several steps.

docs/decoding.md follows the search of two images row by row.

Dimensions: B images, R images still searched, W rows (beams) of each, P grid cells, E encoder width.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from imgcap.decoding import captured
from imgcap.decoding.captured import CapturedSteps, captured_steps
from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Frontier, Likeliest
from imgcap.decoding.hypotheses import Hypotheses, Pool
from imgcap.decoding.live import Live, advance, begin
from imgcap.models.decoders.base import Decoder
from imgcap.types import PAD, SOS

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

    Nothing in a step waits for the device but the test how many images are left.
    """
    assert max_length >= 1, "a search needs a length"
    images, device = len(features_BPE[0]), features_BPE[0].device
    steps: Eager | CapturedSteps = captured_steps(device) if device.type in captured.DEVICES else Eager()
    with steps.turn:
        live = steps.begin(ensemble, features_BPE, frontier, constraints, max_length, length_penalty, attention)
        pool: Pool | None = None  # of all images, once some have left
        for step in range(max_length + 1):
            live = steps.advance(live, ensemble, last=step == max_length)
            if step == max_length or (step + 1) % steps.look:
                continue
            open_R = live.open()
            remaining = int(open_R.sum())
            if not remaining:
                break
            size = steps.size(remaining, len(live.images_R))
            if size < len(live.images_R):
                pool = live.pool if pool is None else pool.updated(live.images_R, live.pool)
                live = live.select(open_R.byte().argsort(descending=True, stable=True)[:size])
        pool = live.pool if pool is None else pool.updated(live.images_R, live.pool)
        return pool.read_out(images)


class Eager:
    """Steps that the host launches one kernel after another, and looks after each which images are done."""

    look = 1
    turn = nullcontext()

    def begin(self, ensemble: Ensemble, *search: Any) -> Live:
        live = begin(ensemble, *search)
        return live._replace(state=ensemble.eager(live.state, live.pool.seen_RLWP is not None))

    def advance(self, live: Live, ensemble: Ensemble, last: bool) -> Live:
        return advance(live, ensemble, last)

    def size(self, remaining: int, images: int) -> int:
        """With how many of its images a search goes on."""
        return remaining if remaining <= SHRINK * images else images
