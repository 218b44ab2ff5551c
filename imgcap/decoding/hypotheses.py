"""Captions as a search carries them, the pools that keep the finished ones, and what it found in the end.

Dimensions: B images, R images still searched, W rows of each, G pools of an image and K captions in each, W = GK at the
end, N rows that lead to a pool, P grid cells, L tokens of the longest caption, X what is known of a token: itself and,
where attention is asked for, the row of the beam that it followed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from imgcap.types import EOS, PAD


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


def choose(said_RWLX: Tensor, row_RK: Tensor) -> Tensor:
    """Take some rows of each image, or of each pool."""
    index_RKLX = row_RK[..., None, None].expand(*row_RK.shape, *said_RWLX.shape[-2:])
    return said_RWLX.gather(row_RK.ndim - 1, index_RKLX)


def go_on(said_RWLX: Tensor, step: Tensor, parent_RW: Tensor, token_RW: Tensor) -> Tensor:
    """Let row w be what its parent was, with a token after its first `step` ones."""
    said_RWLX = choose(said_RWLX, parent_RW)
    for known_RWL, new_RW in zip(said_RWLX.unbind(3), (token_RW, parent_RW), strict=False):
        known_RWL.index_copy_(2, step.view(1), new_RW[..., None])
    return said_RWLX


class Pool(NamedTuple):
    """Finished captions of a search with their normalised scores, the best of each pool first."""

    score_RGK: Tensor
    said_RGKLX: Tensor
    seen_RLWP: Tensor | None  # attention of the beam's rows at each step, where it is asked for

    def select(self, images_S: Tensor) -> "Pool":
        return Pool(*(None if x is None else x.index_select(0, images_S) for x in self))  # type: ignore[arg-type]

    def updated(self, images_R: Tensor, pool: "Pool") -> "Pool":
        """Replace the captions of some images."""
        both = zip(self, pool, strict=True)
        return Pool(*(None if x is None or y is None else x.index_copy(0, images_R, y) for x, y in both))  # type: ignore[arg-type]

    def see_(self, step: Tensor, attention_RWP: Tensor | None) -> None:
        """Note what the rows of a step saw."""
        if self.seen_RLWP is not None and attention_RWP is not None:
            seen_RLWP = self.seen_RLWP[:, :, : attention_RWP.shape[1]]
            seen_RLWP.index_copy_(1, step.view(1), attention_RWP[:, None].to(seen_RLWP.dtype))

    def merge(self, score_RW: Tensor, said_RWLX: Tensor) -> "Pool":
        """Take in rows that ended with this score (-inf: none did) and keep the best of each pool."""
        pools, size = self.score_RGK.shape[1:]
        score_RGN = torch.cat([self.score_RGK, score_RW.unflatten(1, (pools, -1))], dim=2)
        said_RGNLX = torch.cat([self.said_RGKLX, said_RWLX.unflatten(1, (pools, -1))], dim=2)
        score_RGK, kept_RGK = score_RGN.topk(size, dim=2)
        return Pool(score_RGK, choose(said_RGNLX, kept_RGK), self.seen_RLWP)

    def is_open(self, reach_RW: Tensor) -> Tensor:
        """Whether a row of an image can still beat the worst of its pool; `reach_RW` is the most it can score."""
        reach_RG = reach_RW.unflatten(1, (self.score_RGK.shape[1], -1)).amax(2)
        return (reach_RG > self.score_RGK[..., -1]).any(1)

    def read_out(self, images: int) -> Hypotheses:
        """Tell the captions of the first images."""
        score_BGK, said_BGKLX = self.score_RGK[:images], self.said_RGKLX[:images]
        score_BW, order_BW = score_BGK.flatten(1).sort(dim=1, descending=True, stable=True)
        said_BWLX = choose(said_BGKLX.flatten(1, 2), order_BW)
        token_BWL, none_BW = said_BWLX[..., 0], score_BW == -torch.inf
        length_BW = ((token_BWL == EOS).byte().argmax(2) + 1).masked_fill(none_BW, 0)
        attention_BLP = None
        if self.seen_RLWP is not None:
            row_BL11 = said_BWLX[:, 0, :, 1, None, None]  # of the best caption
            inside_BL = torch.arange(token_BWL.shape[2], device=token_BWL.device) < length_BW[:, :1]
            attention_BLP = self.seen_RLWP[:images].take_along_dim(row_BL11, 2).squeeze(2) * inside_BL[..., None]
        return Hypotheses(token_BWL.masked_fill(none_BW[..., None], PAD), score_BW, length_BW, attention_BLP)
