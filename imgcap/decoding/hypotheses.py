"""Finished captions: how a search keeps them, and how it reads them back from its steps.

Dimensions: B images, R images still searched, G pools of an image and K captions in each, W = GK captions,
N rows that lead to a pool, P grid cells, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from imgcap.types import PAD


@dataclass(frozen=True)
class Hypotheses:
    """The W best captions of each image, the best first.

    Tokens come without <sos>, with <eos>, then <pad>. Lengths count <eos>. Where an image has fewer possible
    captions than beams, the rest have length 0 and score -inf. The attention is that of the best caption.
    """

    tokens_BWL: Tensor
    scores_BW: Tensor
    lengths_BW: Tensor
    attention_BLP: Tensor | None

    @property
    def tokens_BL(self) -> Tensor:
        return self.tokens_BWL[:, 0]

    @property
    def lengths_B(self) -> Tensor:
        return self.lengths_BW[:, 0]

    def first(self, count: int) -> "Hypotheses":
        """Keep the `count` best captions of each image."""
        tokens_BWL, scores_BW, lengths_BW = self.tokens_BWL, self.scores_BW, self.lengths_BW
        return Hypotheses(tokens_BWL[:, :count], scores_BW[:, :count], lengths_BW[:, :count], self.attention_BLP)

    def distinct(self) -> "Hypotheses":
        """Keep each caption once; those that were there twice make room at the end."""
        same_BWW = (self.tokens_BWL[:, :, None] == self.tokens_BWL[:, None]).all(-1)
        again_BW = same_BWW.tril(-1).any(-1)
        scores_BW = self.scores_BW.masked_fill(again_BW, -torch.inf)
        order_BW = again_BW.int().argsort(dim=1, stable=True)
        return Hypotheses(
            self.tokens_BWL.masked_fill(again_BW[..., None], PAD).take_along_dim(order_BW[..., None], 1),
            scores_BW.gather(1, order_BW),
            self.lengths_BW.masked_fill(again_BW, 0).gather(1, order_BW),
            self.attention_BLP,
        )


class Step(NamedTuple):
    """What one step of a search chose: for each row of the new beam its parent, its word, and what the parents saw."""

    images_R: Tensor  # whose these are
    parent_RW: Tensor
    token_RW: Tensor
    attention_RWP: Tensor | None

    def of_all(self, images: int) -> "Step":
        """Extend the step to a row for every image; zeros where the image was done."""
        if len(self.images_R) == images:
            return self
        parent_BW, token_BW, attention_BWP = (
            None if x is None else x.new_zeros(images, *x.shape[1:]).index_copy(0, self.images_R, x) for x in self[1:]
        )
        assert parent_BW is not None and token_BW is not None
        return Step(torch.arange(images, device=parent_BW.device), parent_BW, token_BW, attention_BWP)


class Pool(NamedTuple):
    """Finished captions of a search: normalised score, the step that ended each, its row in that step."""

    score_BGK: Tensor
    step_BGK: Tensor
    row_BGK: Tensor

    @classmethod
    def empty(cls, images: int, pools: int, size: int, device: torch.device) -> "Pool":
        nothing_BGK = torch.zeros(images, pools, size, dtype=torch.int64, device=device)
        return cls(torch.full_like(nothing_BGK, -torch.inf, dtype=torch.float32), nothing_BGK, nothing_BGK)

    def merge(self, images_R: Tensor, score_RW: Tensor, step: int) -> "Pool":
        """Take in what row w of some images ended at this step (-inf: nothing) and keep the best of each pool."""
        images, pools, size = self.score_BGK.shape
        score_RGN = score_RW.unflatten(1, (pools, -1))
        score_BGN = score_RW.new_full((images, *score_RGN.shape[1:]), -torch.inf).index_copy(0, images_R, score_RGN)
        row_GN = torch.arange(score_RW.shape[1], device=score_RW.device).unflatten(0, (pools, -1))
        scores = torch.cat([self.score_BGK, score_BGN], dim=2)
        steps = torch.cat([self.step_BGK, torch.full_like(score_BGN, step, dtype=torch.int64)], dim=2)
        rows = torch.cat([self.row_BGK, row_GN.expand_as(score_BGN)], dim=2)
        kept_BGK, index_BGK = scores.topk(size, dim=2)
        return Pool(kept_BGK, steps.gather(2, index_BGK), rows.gather(2, index_BGK))

    def is_open(self, images_R: Tensor, reach_RW: Tensor) -> Tensor:
        """Whether a row of some images can still beat the worst of its pool; `reach_RW` is the most it can score."""
        reach_RG = reach_RW.unflatten(1, (self.score_BGK.shape[1], -1)).amax(2)
        return (reach_RG > self.score_BGK.index_select(0, images_R).amin(2)).any(1)


def trace(pool: Pool, history: Sequence[Step], length: int) -> Hypotheses:
    """Walk the parents back from where each finished caption ended."""
    score_BW, order_BW = pool.score_BGK.flatten(1).sort(dim=1, descending=True, stable=True)
    last_BW = pool.step_BGK.flatten(1).gather(1, order_BW).masked_fill(score_BW == -torch.inf, -1)
    row_BW = pool.row_BGK.flatten(1).gather(1, order_BW)
    tokens_BWL = torch.full((*row_BW.shape, length), PAD, device=row_BW.device)
    seen: list[Tensor] = []
    for step in reversed(range(len(history))):
        _, parent_BW, token_BW, attention_BWP = history[step].of_all(len(row_BW))
        inside_BW = step <= last_BW
        tokens_BWL[..., step] = torch.where(inside_BW, token_BW.gather(1, row_BW), PAD)
        row_BW = torch.where(inside_BW, parent_BW.gather(1, row_BW), row_BW)
        if attention_BWP is not None:
            best_B1P = row_BW[:, :1, None].expand(-1, -1, attention_BWP.shape[-1])
            seen.append(attention_BWP.gather(1, best_B1P)[:, 0] * inside_BW[:, :1])
    attention_BLP = None
    if seen:
        unused = [torch.zeros_like(seen[0])] * (length - len(seen))
        attention_BLP = torch.stack(seen[::-1] + unused, dim=1)
    return Hypotheses(tokens_BWL, score_BW, last_BW + 1, attention_BLP)
