"""Which continuations a step keeps: the likeliest, the likeliest of unlike groups or of banks, or drawn ones.

A frontier takes the rows so far and the log probability of every word after each, and says which rows live on: each as
its new log probability, its parent and its word. It knows how many rows an image begins with and how many pools its
finished captions go to. All shapes are the same at each step, and nothing is read on the host: a graph can hold it.

Dimensions: R images still searched, W rows of each, L words of the longest caption, V vocabulary, C required words,
S = C + 1 banks, K rows of a group or bank, X candidates.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.models.kernels.trees import Tree
from imgcap.types import EOS

PIECEWISE = frozenset({"cuda"})  # devices that look for the largest in pieces
PIECE, MANY = 128, 32  # entries of a piece; pieces from which on that pays


class Prefixes(NamedTuple):
    """Beginnings of captions that a step extends. One of log probability -inf is none."""

    step: Tensor  # words of each, 0-D
    log_prob_RW: Tensor
    words_RWL: Tensor  # <pad> from there on


class Chosen(NamedTuple):
    """Rows that live on after a step. A row of log probability -inf is none."""

    log_prob_RW: Tensor
    parent_RW: Tensor
    token_RW: Tensor

    def gather(self, index_RX: Tensor) -> "Chosen":
        return Chosen(*(x.gather(-1, index_RX) for x in self))


class Frontier(Tree):
    """A way of choosing which rows of a search live on."""

    @property
    def rows(self) -> int:
        """Rows of an image at the first step, each of which becomes `pool_size` rows then."""
        return 1

    @property
    def pools(self) -> int:
        """Pools that an image's finished captions go to."""
        return 1

    @property
    def pool_size(self) -> int:
        """Captions that a pool keeps."""
        raise NotImplementedError

    def begin(self, images: int, device: torch.device) -> Tensor:
        """Log probabilities (images, rows) of the rows before the first word."""
        return torch.zeros(images, self.rows, device=device)

    def extend_(self, prefixes: Prefixes, log_probs_RWV: Tensor) -> Chosen:
        """Choose the rows that live on; `log_probs_RWV` may be overwritten."""
        raise NotImplementedError

    def select(self, images_S: Tensor) -> Self:
        """Go on with some of the images."""
        return self


@dataclass(frozen=True)
class Likeliest(Frontier):
    """Plain beam search: the `beam` likeliest of all rows × words."""

    beam: int

    @property
    def pool_size(self) -> int:
        return self.beam

    def extend_(self, prefixes: Prefixes, log_probs_RWV: Tensor) -> Chosen:
        return _top(log_probs_RWV.add_(prefixes.log_prob_RW[..., None]), self.beam)


@dataclass(frozen=True)
class Groups(Frontier):
    """Diverse beam search (Vijayakumar et al. 2018) with Hamming diversity.

    The groups choose in turn, each a plain beam, but a word costs `diversity` for every beam of an earlier group that
    has just chosen it. The penalty is in the choice only: log probabilities stay those of the model.
    """

    groups: int
    beams: int  # of each
    diversity: float

    @property
    def rows(self) -> int:
        return self.groups

    @property
    def pools(self) -> int:
        return self.groups

    @property
    def pool_size(self) -> int:
        return self.beams

    def extend_(self, prefixes: Prefixes, log_probs_RWV: Tensor) -> Chosen:
        candidates_RWV = log_probs_RWV.add_(prefixes.log_prob_RW[..., None])
        penalty_RV = torch.zeros_like(candidates_RWV[:, 0])
        chosen = []
        for group, candidates_RKV in enumerate(candidates_RWV.chunk(self.groups, dim=1)):
            rows, words = candidates_RKV.shape[1:]
            penalised_RK, parent_RK, token_RK = _top(candidates_RKV - penalty_RV[:, None], self.beams)
            exists_RK = penalised_RK > -torch.inf
            log_prob_RK = candidates_RKV.flatten(1).gather(1, parent_RK * words + token_RK).where(exists_RK, -torch.inf)
            penalty_RV.scatter_add_(1, token_RK, exists_RK.to(penalty_RV.dtype) * self.diversity)
            chosen.append(Chosen(log_prob_RK, parent_RK + group * rows, token_RK))
        return Chosen(*(torch.cat(parts, dim=1) for parts in zip(*chosen, strict=True)))


@dataclass(frozen=True)
class Banks(Frontier):
    """Constrained beam search: a bank of `beam` rows for each number of required words that they hold.

    The grid of Hokamp & Liu 2017, for single words. A row moves to the next bank by a word that it lacks, and may end
    in the last bank only. A bank that could no longer get all its words into `max_length` closes, so every caption
    holds them.
    """

    beam: int
    required_C: Tensor
    max_length: int

    @property
    def rows(self) -> int:
        return len(self.required_C) + 1

    @property
    def pool_size(self) -> int:
        return self.beam

    def begin(self, images: int, device: torch.device) -> Tensor:
        live_S = torch.full((self.rows,), -torch.inf, device=device)
        live_S[0] = 0.0  # nothing is said yet
        return live_S.repeat(images, 1)

    def extend_(self, prefixes: Prefixes, log_probs_RWV: Tensor) -> Chosen:
        lacks_RWC = (prefixes.words_RWL[..., None] != self.required_C).all(2)
        candidates_RWV = log_probs_RWV.add_(prefixes.log_prob_RW[..., None])
        in_banks_RSKV, lacks_RSKC = (x.unflatten(1, (self.rows, -1)) for x in (candidates_RWV, lacks_RWC))
        in_banks_RSKV[:, :-1, :, EOS] = -torch.inf  # only the last bank may end
        coming = self._coming(in_banks_RSKV, lacks_RSKC)
        staying = self._staying_(in_banks_RSKV, lacks_RSKC)
        return self._best(staying, coming, prefixes.step)

    def _coming(self, in_banks_RSKV: Tensor, lacks_RSKC: Tensor) -> Chosen:
        """Choose the likeliest that come to each bank from the one before, by a word that they lacked."""
        required_RSKC = in_banks_RSKV.index_select(3, self.required_C)
        leaving = _top_of_banks(required_RSKC.masked_fill(~lacks_RSKC, -torch.inf), self.beam)
        leaving = leaving._replace(token_RW=self.required_C[leaving.token_RW])
        return Chosen(*(_to_the_next(leaving_RSX) for leaving_RSX in leaving))

    def _staying_(self, in_banks_RSKV: Tensor, lacks_RSKC: Tensor) -> Chosen:
        """Choose the likeliest that stay in each bank, by any other word. Overwrites the candidates."""
        required_RSKC = in_banks_RSKV.index_select(3, self.required_C)
        in_banks_RSKV.index_copy_(3, self.required_C, required_RSKC.masked_fill(lacks_RSKC, -torch.inf))
        return _top_of_banks(in_banks_RSKV, self.beam)

    def _best(self, staying: Chosen, coming: Chosen, step: Tensor) -> Chosen:
        """Keep the likeliest of both in each bank, but none where more words are lacking than there is room for."""
        candidates_RSX = Chosen(*(torch.cat(both, dim=2) for both in zip(staying, coming, strict=True)))
        bank_S1 = torch.arange(self.rows, device=step.device)[:, None]
        candidates_RSX.log_prob_RW.masked_fill_(bank_S1 < step + (self.rows - self.max_length), -torch.inf)
        best_RSK = candidates_RSX.gather(candidates_RSX.log_prob_RW.topk(self.beam, dim=2).indices)
        return Chosen(*(x.flatten(1) for x in best_RSK))


@dataclass(frozen=True)
class Samples(Frontier):
    """Sampling: each row goes on with a word drawn from softmax(log P / temperature), less what is cut.

    `top_k` keeps the k likeliest words (Fan et al. 2018); of these, `top_p` the fewest that hold so much of the
    probability (Holtzman et al. 2020). Drawn by `coins_RWT`, one uniform number a word.
    """

    coins_RWT: Tensor
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    @property
    def rows(self) -> int:
        return self.coins_RWT.shape[1]

    @property
    def pools(self) -> int:
        return self.rows

    @property
    def pool_size(self) -> int:
        return 1

    def select(self, images_S: Tensor) -> Self:
        return replace(self, coins_RWT=self.coins_RWT.index_select(0, images_S))

    def extend_(self, prefixes: Prefixes, log_probs_RWV: Tensor) -> Chosen:
        coin_RW = self.coins_RWT.index_select(2, prefixes.step.view(1)).squeeze(2)
        token_RW = self._draw(log_probs_RWV, coin_RW)
        log_prob_RW = prefixes.log_prob_RW + log_probs_RWV.gather(2, token_RW[..., None]).squeeze(2)
        return Chosen(log_prob_RW, torch.arange(self.rows, device=token_RW.device).expand_as(token_RW), token_RW)

    def _draw(self, log_probs_RWV: Tensor, coin_RW: Tensor) -> Tensor:
        words = log_probs_RWV.shape[2]
        if self.top_k is None and self.top_p == 1:
            return _draw((log_probs_RWV / self.temperature).softmax(-1), coin_RW)
        sorted_RWX, word_RWX = log_probs_RWV.topk(min(self.top_k or words, words), dim=2)
        probs_RWX = (sorted_RWX / self.temperature).softmax(-1)
        before_RWX = probs_RWX.cumsum(2) - probs_RWX  # what likelier words hold: 0 for the first, which always stays
        place_RW = _draw(probs_RWX.masked_fill(before_RWX >= self.top_p, 0.0), coin_RW)
        return word_RWX.gather(2, place_RW[..., None]).squeeze(2)


def _draw(weights_RWX: Tensor, coin_RW: Tensor) -> Tensor:
    """Draw the first place where the running sum of the weights passes the coin's share of all; never one of weight 0.

    A GPU adds in another order for each place, so a sum may rise or fall by rounding where the weight is 0. A coin is
    at most 1 - 2**-24, so its share is below the whole also when it is rounded.
    """
    running_RWX = weights_RWX.cumsum(2).masked_fill(weights_RWX == 0, 0.0)
    share_RW1 = coin_RW[..., None] * running_RWX.amax(2, keepdim=True)
    return (running_RWX > share_RW1).to(torch.uint8).argmax(2)


def _top(candidates_RKV: Tensor, count: int) -> Chosen:
    """Choose the `count` likeliest rows × words."""
    rows, words = candidates_RKV.shape[-2:]
    candidates_RX = candidates_RKV.flatten(-2)
    missing = max(count - rows * words, 0)  # more beams than words, at the first step
    if missing:
        candidates_RX = F.pad(candidates_RX, (0, missing), value=-torch.inf)
    log_prob_RX, index_RX = _topk(candidates_RX, count)
    parent_RX = index_RX // words
    return Chosen(log_prob_RX, parent_RX.clamp_(max=rows - 1) if missing else parent_RX, index_RX % words)


def _topk(candidates_RX: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` largest of each row and where they are, as `torch.topk` does.

    On a GPU that reads a long row sixteen times. Here it is read once, for the largest of each piece of it: the pieces
    with the largest of these hold all that is looked for.
    """
    length = candidates_RX.shape[-1]
    if candidates_RX.device.type not in PIECEWISE or length < max(count, MANY) * PIECE:
        return candidates_RX.topk(count, dim=-1)
    pieces = length // PIECE
    whole_RXY = candidates_RX[..., : pieces * PIECE].unflatten(-1, (pieces, PIECE))
    largest = [whole_RXY.amax(-1)]
    if length % PIECE:
        largest.append(candidates_RX[..., pieces * PIECE :].amax(-1, keepdim=True))
    piece_RC = torch.cat(largest, dim=-1).topk(count, dim=-1).indices
    index_RY = (piece_RC[..., None] * PIECE + torch.arange(PIECE, device=piece_RC.device)).flatten(-2)
    beyond_RY = index_RY >= length
    index_RY = index_RY.clamp_(max=length - 1)
    found_RC, place_RC = candidates_RX.gather(-1, index_RY).masked_fill_(beyond_RY, -torch.inf).topk(count, dim=-1)
    return found_RC, index_RY.gather(-1, place_RC)


def _top_of_banks(candidates_RSKV: Tensor, count: int) -> Chosen:
    """Choose the likeliest of each bank, their parents counted over all banks."""
    banks, rows = candidates_RSKV.shape[1:3]
    chosen = _top(candidates_RSKV, count)
    first_S1 = torch.arange(0, banks * rows, rows, device=candidates_RSKV.device)[:, None]
    return chosen._replace(parent_RW=chosen.parent_RW + first_S1)


def _to_the_next(gained_RSX: Tensor) -> Tensor:
    """Shift what left each bank to the bank after it. The last lacks no word, so nothing leaves it."""
    nothing = -torch.inf if gained_RSX.is_floating_point() else 0
    return F.pad(gained_RSX[:, :-1], (0, 0, 1, 0), value=nothing)
