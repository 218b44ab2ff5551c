"""The Transformer decoder (Vaswani et al. 2017), pre-norm (Xiong et al. 2020): words look at words and at the image.

In training one causal pass reads all words at once. A search reads a word of each row at a time: keys and values of
the cells are made once an image, shared by its rows; those of the words lie in a cache that never moves, and each row
knows the places of its own words in it.

Dimensions: L layers, J keys and values (2), B images, K captions or W beams an image, T tokens, V vocabulary,
P grid cells, E encoder width, D width, F feed-forward width, N heads, C = D / N width of a head,
S places of a cache (T times K), U = BK, M rows: steps that are computed, X products side by side.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcap.config.model import TransformerConfig
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.lstm_stack import initialise_output
from imgcap.models.decoders.state import Axes, DecoderState
from imgcap.models.kernels.dropout import Dropout
from imgcap.models.kernels.dtypes import compute_dtype, exact_dtype
from imgcap.models.kernels.linear import Linear, linear, packed
from imgcap.models.packed import Rows, keeps_all_steps

MANY_IMAGES = 8  # of a search: with as many, its products repay that weights are laid out for them
FIRST_WORDS = 5  # for which such a search has room at first
EMBEDDING_SPREAD = 0.02  # standard deviation, as GPT-2's: tied to the output, it prefers no word


class Product(NamedTuple):
    """Weights of a linear layer in the dtype of the matmul."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply x (..., D), which is in a dtype for sums, in that of the weights."""
        return linear(x.to(self.weight.dtype), self.weight, self.bias)

    def packed(self) -> "Product":
        return Product(packed(self.weight), self.bias)


class PreparedLayer(NamedTuple):
    """Products of a decoder layer."""

    words: Product  # query, keys and values of self-attention, side by side
    words_out: Product
    query: Product  # of the cells
    cells_out: Product
    wide: Product
    narrow: Product


@dataclass(frozen=True)
class TransformerState(DecoderState):
    """Keys and values of the cells and of the words read, and where each row's words lie among them.

    Token t of a row is at place (t, k) of the cache if `place_BKT` says k there, and isn't read yet if it says -1.
    A search that reorders its rows moves these numbers alone.
    """

    prepared: tuple[PreparedLayer, ...]
    place_BKT: Tensor
    cells_LJBNPC: Tensor
    cache_LJBNTKC: Tensor
    words: int | None = None  # read, where the host counts them: then the cache grows with them
    output: Product | None = None  # prepared, for a search
    attends: bool = True  # a step says where it looked

    axes: ClassVar[Mapping[str, Axes]] = {
        "place_BKT": Axes(0, 1),
        "cache_LJBNTKC": Axes(2, 5, moves=False),
        "cells_LJBNPC": Axes(2),
    }

    def reorder(self, beams_BW: Tensor) -> Self:
        """Let row w be what row beams_BW[b, w] was; a first choice may make rows of which the cache has no places."""
        missing = beams_BW.shape[1] - self.cache_LJBNTKC.shape[5]
        moved = super().reorder(beams_BW)
        if missing <= 0:
            return moved
        return moved.with_tensors({"cache_LJBNTKC": F.pad(self.cache_LJBNTKC, (0, 0, 0, missing))})


class TransformerDecoder(Decoder[TransformerState]):
    """Pre-norm Transformer with learned positions; its attention is the mean of all layers' and heads' over the cells.

    - The cells are projected to the width and normed; `grid_positions` adds where each lies in the picture, and
      `image_layers` layers of self-attention let them see one another first.
    - `tie_embeddings`: the output layer's weight is the embedding's (Press & Wolf 2017).
    - Dropout follows the embedding and each sub-layer, not the attention's softmax, which stays one fused operation.
    """

    attends = True

    def __init__(self, config: TransformerConfig, vocabulary_size: int, encoder_width: int):
        super().__init__()
        width, self.heads, self.grid_positions = config.width, config.heads, config.grid_positions
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(config.max_length, width)
        self.image = Linear(encoder_width, width)
        self.image_norm = nn.LayerNorm(width)
        self.image_layers = nn.ModuleList(ImageLayer(config) for _ in range(config.image_layers))
        self.layers: Sequence[WordLayer] = nn.ModuleList(  # type: ignore[assignment]
            WordLayer(config) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)
        self.output = Linear(width, vocabulary_size)
        _initialise(self, 3 * config.layers)
        if config.tie_embeddings:
            self.output.weight = self.embedding.weight
        else:
            initialise_output(self.output)

    def init(self, features_BPE: Tensor, rows: int, length: int) -> TransformerState:
        dtype = compute_dtype(self.image.weight)
        cells_BPD = self._look(features_BPE.to(dtype))
        products_BPX = [_prepared(layer.cells, dtype)(cells_BPD) for layer in self.layers]
        cells_LJBNPC = torch.stack([torch.stack(_divided(each_BPX, 2, self.heads)) for each_BPX in products_BPX])
        shape = (*cells_LJBNPC.shape[:4], length, rows, cells_LJBNPC.shape[5])
        place_BKT = torch.full((features_BPE.shape[0], rows, length), -1, device=features_BPE.device)
        prepared = tuple(layer.prepared(dtype) for layer in self.layers)
        return TransformerState(prepared, place_BKT, cells_LJBNPC, cells_LJBNPC.new_zeros(shape))

    def eager(self, state: TransformerState, attention: bool) -> TransformerState:
        prepared, output = state.prepared, _prepared(self.output, state.cache_LJBNTKC.dtype)
        if len(state.place_BKT) >= MANY_IMAGES:
            prepared = tuple(PreparedLayer(*(product.packed() for product in layer)) for layer in prepared)
            output = output.packed()
        cache_LJBNTKC = state.cache_LJBNTKC[:, :, :, :, :FIRST_WORDS].contiguous()
        ready = state.with_tensors({"cache_LJBNTKC": cache_LJBNTKC})
        return replace(ready, prepared=prepared, words=0, output=output, attends=attention)

    def _look(self, features_BPE: Tensor) -> Tensor:
        """Bring the cells to the decoder's width, and let them see one another."""
        cells_BPD = _normed(self.image_norm, self.image(features_BPE))
        if self.grid_positions:
            cells_BPD = cells_BPD + grid_positions(cells_BPD.shape[1], cells_BPD.shape[2], cells_BPD.device)
        cells_BPD = self.dropout(cells_BPD)
        for layer in self.image_layers:
            cells_BPD = layer(cells_BPD, features_BPE.dtype)
        return cells_BPD

    def step(self, state: TransformerState, token_BK: Tensor) -> tuple[Tensor, TransformerState, Tensor | None]:
        rows, length = state.place_BKT.shape[1:]
        row_K = torch.arange(rows, device=token_BK.device)
        read_BK1 = (state.place_BKT >= 0).sum(-1, keepdim=True)  # tokens of a row: the place of the next in time
        now_BKT = torch.arange(length, device=token_BK.device) == read_BK1
        place_BKT = torch.where(now_BKT, row_K[:, None], state.place_BKT)
        cache_LJBNTKC = _with_room(state.cache_LJBNTKC, state.words, length)
        mine_B1KS = (place_BKT[..., : cache_LJBNTKC.shape[4], None] == row_K).flatten(2)[:, None]
        x_BKD = self.dropout(_exact(self.embedding(token_BK) + self.positions(read_BK1.squeeze(-1))))
        looked: list[Tensor] = []
        for index, (layer, weights) in enumerate(zip(self.layers, state.prepared, strict=True)):
            query_BNKC, *new = _divided(weights.words(_normed(layer.norm_words, x_BKD)), 3, self.heads)
            if state.words is None:
                cache_LJBNTKC = _written(cache_LJBNTKC, index, torch.stack(new), now_BKT[0, 0])
            else:
                for cache_BNTKC, new_BNKC in zip(cache_LJBNTKC[index], new, strict=True):
                    cache_BNTKC[:, :, state.words] = new_BNKC
            keys_BNSC, values_BNSC = cache_LJBNTKC[index].flatten(3, 4)
            words_BNKC = _attended(query_BNKC, keys_BNSC, values_BNSC, mine_B1KS)
            x_BKD = _sum(x_BKD, self.dropout(weights.words_out(_join(words_BNKC))))
            x_BKD, attention_BKP = layer.look(x_BKD, weights, state.cells_LJBNPC[index], self.heads, state.attends)
            looked += [] if attention_BKP is None else [attention_BKP]
        logits_BKV = (state.output or self.output)(_normed(self.norm, x_BKD).to(cache_LJBNTKC.dtype))
        after = state.with_tensors({"place_BKT": place_BKT, "cache_LJBNTKC": cache_LJBNTKC})
        if state.words is not None:
            after = replace(after, words=state.words + 1)
        return logits_BKV, after, torch.stack(looked).mean(0) if looked else None

    def read(self, state: TransformerState, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        words_BKT, targets_BKT = tokens_BKT[..., :-1], tokens_BKT[..., 1:]
        rows = Rows(targets_BKT, whole=keeps_all_steps(targets_BKT, self.embedding.weight))
        position_T = torch.arange(words_BKT.shape[2], device=tokens_BKT.device)
        x_MD = self.dropout(_exact(rows.pick(self.embedding(words_BKT) + self.positions(position_T))))
        looked: list[Tensor] = []
        for index, (layer, weights) in enumerate(zip(self.layers, state.prepared, strict=True)):
            products_BKTX = rows.spread(weights.words(_normed(layer.norm_words, x_MD)))
            query_UNTC, keys_UNTC, values_UNTC = _divided(products_BKTX.flatten(0, 1), 3, self.heads)
            words_UTD = _join(_attended(query_UNTC, keys_UNTC, values_UNTC, causal=True))
            words_MD = rows.pick(words_UTD.unflatten(0, words_BKT.shape[:2]))
            x_MD = _sum(x_MD, self.dropout(weights.words_out(words_MD)))
            cells_JBNPC = state.cells_LJBNPC[index]
            x_MD, attention_BKP = layer.look(x_MD, weights, cells_JBNPC, self.heads, attention, rows)
            looked += [] if attention_BKP is None else [attention_BKP]
        readout_BKTD = rows.spread(_normed(self.norm, x_MD).to(state.cells_LJBNPC.dtype))
        return readout_BKTD, torch.stack(looked).mean(0).unflatten(1, words_BKT.shape[1:]) if attention else None


class WordLayer(nn.Module):
    """A layer of the decoder: self-attention over the words so far, attention over the cells, feed-forward."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.norm_words, self.norm_cells, self.norm_wide = (nn.LayerNorm(width) for _ in range(3))
        self.words = Linear(width, 3 * width)
        self.words_out = Linear(width, width)
        self.query = Linear(width, width)
        self.cells = Linear(width, 2 * width)  # keys and values, side by side
        self.cells_out = Linear(width, width)
        self.wide = Linear(width, config.feedforward)
        self.narrow = Linear(config.feedforward, width)
        self.dropout = Dropout(config.dropout)

    def prepared(self, dtype: torch.dtype) -> PreparedLayer:
        """Cast the weights of all products but those of the cells, which `init` alone needs."""
        return PreparedLayer(*(_prepared(getattr(self, name), dtype) for name in PreparedLayer._fields))

    def look(
        self,
        x_BKD: Tensor,
        weights: PreparedLayer,
        cells_JBNPC: Tensor,
        heads: int,
        attention: bool,
        rows: Rows | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Look at the cells and take the feed-forward layer; return also attention_BKP (float32) where it is asked for.

        K are an image's rows at one step; with `rows` all steps of all of them, and x is (M, D), what is computed.
        """
        query = weights.query(_normed(self.norm_cells, x_BKD))
        if rows is not None:
            query = rows.spread(query)
        (query_BNKC,) = _divided(query.flatten(1, -2), 1, heads)
        keys_BNPC, values_BNPC = cells_JBNPC
        attention_BKP = None
        if attention:
            attention_BNKP = _attention(query_BNKC, keys_BNPC)
            context_BNKC = attention_BNKP.to(values_BNPC.dtype) @ values_BNPC
            attention_BKP = attention_BNKP.mean(1)
        else:
            context_BNKC = _attended(query_BNKC, keys_BNPC, values_BNPC)
        context = _join(context_BNKC).view(query.shape)
        if rows is not None:
            context = rows.pick(context)
        x_BKD = _sum(x_BKD, self.dropout(weights.cells_out(context)))
        wide_BKF = F.gelu(weights.wide(_normed(self.norm_wide, x_BKD)))
        return _sum(x_BKD, self.dropout(weights.narrow(wide_BKF))), attention_BKP


class ImageLayer(nn.Module):
    """A layer of the adapter: self-attention over the cells of an image, feed-forward."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_cells, self.norm_wide = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cells = Linear(width, 3 * width)
        self.cells_out = Linear(width, width)
        self.wide = Linear(width, config.feedforward)
        self.narrow = Linear(config.feedforward, width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BPD: Tensor, dtype: torch.dtype) -> Tensor:
        products_BPX = self.cells(_normed(self.norm_cells, x_BPD).to(dtype))
        query_BNPC, keys_BNPC, values_BNPC = _divided(products_BPX, 3, self.heads)
        seen_BNPC = _attended(query_BNPC, keys_BNPC, values_BNPC)
        x_BPD = x_BPD + self.dropout(self.cells_out(_join(seen_BNPC)))
        wide_BPF = F.gelu(self.wide(_normed(self.norm_wide, x_BPD).to(dtype)))
        return x_BPD + self.dropout(self.narrow(wide_BPF))


def grid_positions(cells: int, width: int, device: torch.device) -> Tensor:
    """Sines of where each cell lies in the picture, half of the width for its row and half for its column: (P, D).

    The cells are those of a square, row by row. Tokens before them, as a class token, lie nowhere: their sines are 0.
    """
    side = math.isqrt(cells)
    frequency_C = 10_000 ** (-torch.arange(0, width // 2, 2, device=device) / (width // 2))
    angle_PC = torch.arange(side, device=device)[:, None] * frequency_C
    sines_PC = torch.cat([angle_PC.sin(), angle_PC.cos()], dim=1)
    row_PC, column_PC = sines_PC.repeat_interleave(side, dim=0), sines_PC.repeat(side, 1)
    sines_PD = torch.cat([row_PC, column_PC], dim=1)
    return F.pad(sines_PD, (0, width - sines_PD.shape[1], cells - side * side, 0))


def _prepared(layer: nn.Linear, dtype: torch.dtype) -> Product:
    return Product(layer.weight.to(dtype), layer.bias.to(dtype))


def _exact(x: Tensor) -> Tensor:
    """What all sub-layers add to is kept in float32 at least."""
    return x.to(exact_dtype(x.dtype))


def _sum(x: Tensor, new: Tensor) -> Tensor:
    """Add to what is exact. A CPU takes nine times as long for two dtypes as for one."""
    return x + (new.to(x.dtype) if x.device.type == "cpu" else new)


def _normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(_exact(x))


def _divided(products_BKX: Tensor, products: int, heads: int) -> tuple[Tensor, ...]:
    """Divide what lies side by side into so many products, and these among heads: (B, N, K, C) each."""
    return products_BKX.unflatten(-1, (products, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def _attention(query_BNKC: Tensor, keys_BNPC: Tensor, seen_KP: Tensor | None = None) -> Tensor:
    """How much each query attends to each key that it sees, 1 in sum: (B, N, K, P), in float32 at least."""
    scores_BNKP = (query_BNKC * query_BNKC.shape[-1] ** -0.5) @ keys_BNPC.transpose(2, 3)
    if seen_KP is not None:
        scores_BNKP.masked_fill_(~seen_KP, -math.inf)
    return scores_BNKP.softmax(-1, dtype=exact_dtype(scores_BNKP.dtype))


def _attended(
    query_BNKC: Tensor, keys_BNPC: Tensor, values_BNPC: Tensor, seen_KP: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Values in the mean of the attention: (B, N, K, C). A GPU has it fused; on a CPU torch's is the slower one.

    Its backward pass takes eight times as long there in bfloat16, for 105 queries and 49 keys (torch 2.15).
    """
    if query_BNKC.device.type != "cpu":
        return F.scaled_dot_product_attention(query_BNKC, keys_BNPC, values_BNPC, seen_KP, is_causal=causal)
    if causal:
        seen_KP = torch.ones(query_BNKC.shape[2], keys_BNPC.shape[2], dtype=torch.bool).tril()
    return _attention(query_BNKC, keys_BNPC, seen_KP).to(values_BNPC.dtype) @ values_BNPC


def _join(x_BNKC: Tensor) -> Tensor:
    """Put the heads side by side: (B, K, D)."""
    return x_BNKC.transpose(1, 2).flatten(2)


def _with_room(cache_LJBNTKC: Tensor, words: int | None, length: int) -> Tensor:
    """Let a cache that is full of so many words hold twice as many, if there will be: all of it is multiplied."""
    if words is None or words < cache_LJBNTKC.shape[4]:
        return cache_LJBNTKC
    return F.pad(cache_LJBNTKC, (0, 0, 0, 0, 0, min(words, length - words)))


def _written(cache_LJBNTKC: Tensor, layer: int, new_JBNKC: Tensor, now_T: Tensor) -> Tensor:
    """Write keys and values of a layer at one step: in place, but for a gradient or a graph that is exported."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        now_LT11 = (torch.arange(len(cache_LJBNTKC), device=now_T.device)[:, None] == layer)[..., None, None] & now_T[
            :, None, None
        ]
        return torch.where(now_LT11[:, None, None, None], new_JBNKC[:, :, :, None], cache_LJBNTKC)
    place_1 = now_T.byte().argmax(keepdim=True)
    cache_LJBNTKC[layer].index_copy_(3, place_1, new_JBNKC[:, :, :, None])
    return cache_LJBNTKC


def _initialise(decoder: nn.Module, residual: int) -> None:
    """Draw weights that keep the variance of what they read; those that add to a sum of `residual` sub-layers, less."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_SPREAD)
        if isinstance(module, nn.Linear):
            adds = name.endswith(("_out", "narrow"))
            nn.init.normal_(module.weight, std=(module.in_features * (residual if adds else 1)) ** -0.5)
            nn.init.zeros_(module.bias)
