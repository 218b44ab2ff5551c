"""The decoder: its training step, and beam search beside the usual search of one image at a time.

Dimensions: B images, K captions an image, T tokens, W beams, V vocabulary, P grid cells, E encoder width,
A attention width, H hidden width.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.config.model import AttentionLSTMConfig
from imgcap.decoding.search import beam_search
from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.decoders.lstm_stack import LSTMStackDecoder
from imgcap.models.losses import caption_loss
from imgcap.models.precision import autocast, set_float32_matmul
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, Forcing
from tools.bench.timing import PRECISIONS, alternate, ceilings, row, timed

CELLS, WIDTH, VOCABULARY = 49, 2048, 4096  # ResNet-50 at 224 pixels, a Flickr30k vocabulary
DECODER = AttentionLSTMConfig()  # Show, Attend and Tell: 512, 512, 512, gate, mean initial state
NEVER = (PAD, SOS, EOS)  # random weights rarely end a caption: both searches go to the last step
BEAM_OPTIONS = {"images": 64, "beams": [1, 3, 5], "steps": 20}
STEP_OPTIONS = {"images": 16, "captions": 5, "tokens": 22, "compile": (False, "also compiled")}


def random_decoder(device: torch.device) -> AttentionLSTMDecoder:
    torch.manual_seed(0)
    decoder = build_decoder(DECODER, VOCABULARY, WIDTH)
    assert isinstance(decoder, AttentionLSTMDecoder)
    return decoder.to(device)


def bench_beam(arguments: argparse.Namespace) -> dict[str, Any]:
    """Batched beam search in each precision against the usual one, in float32, of one image at a time."""
    device, words = arguments.device, arguments.steps - 1  # the last step is <eos>
    decoder = random_decoder(device).eval()
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    rows, same = [], []
    for beam in arguments.beams:

        def batched(precision: str, beam: int = beam) -> Tensor:
            set_float32_matmul(precision)
            with autocast(device, precision):
                return beam_search(decoder, features_BPE, beam, words, forbidden=NEVER).tokens_BL

        def image_by_image(beam: int = beam) -> Tensor:
            return torch.stack([usual_search(decoder, features_PE, beam, words) for features_PE in features_BPE])

        same.append(int((batched("fp32") == image_by_image()).all(1).sum()))
        runs = {"usual, fp32": timed(image_by_image, device)}
        runs |= {precision: timed(partial(batched, precision), device) for precision in PRECISIONS[device.type]}
        seconds = alternate(runs, arguments.repeats)
        operations = sum(forward_operations(arguments.images, beam, arguments.steps + 1))
        for name, values in seconds.items():
            floor = {"floor_ms": ceilings(device).floor_ms(name.removeprefix("usual, "), operations)}
            usual = seconds["usual, fp32"]
            rows.append(row(f"beam {beam}, {name}", values, arguments.images, "captions", usual) | floor)
    return {"rows": rows, "same_captions": [f"{count} of {arguments.images}" for count in same]}


@torch.no_grad()
def usual_search(decoder: AttentionLSTMDecoder, features_PE: Tensor, beam: int, max_length: int) -> Tensor:
    """Search as tutorials write it: the beams of one image are a batch, each with a copy of the features.

    Every step projects the features anew, and ends before it knows the next. Returns the best caption's
    tokens, <eos> included.
    """
    features_WPE = features_PE.expand(beam, -1, -1).contiguous()
    mean_WE = features_WPE.mean(1)
    assert decoder.init_hidden is not None and decoder.init_cell is not None
    hidden_WH, cell_WH = decoder.init_hidden(mean_WE).tanh(), decoder.init_cell(mean_WE).tanh()
    sequences_WT = torch.full((beam, 1), SOS, device=features_PE.device)
    scores_W = torch.full((beam,), -torch.inf, device=features_PE.device)
    scores_W[0] = 0.0
    for _ in range(max_length):
        logits_WV, hidden_WH, cell_WH = usual_step(decoder, features_WPE, sequences_WT[:, -1], hidden_WH, cell_WH)
        candidates_WV = scores_W[:, None] + F.log_softmax(logits_WV, dim=1)
        candidates_WV[:, list(NEVER)] = -torch.inf
        scores_W, index_W = candidates_WV.view(-1).topk(beam)
        parents_W, words_W = index_W // logits_WV.shape[1], index_W % logits_WV.shape[1]
        sequences_WT = torch.cat([sequences_WT[parents_W], words_W[:, None]], dim=1)
        hidden_WH, cell_WH = hidden_WH[parents_W], cell_WH[parents_W]
    logits_WV, _, _ = usual_step(decoder, features_WPE, sequences_WT[:, -1], hidden_WH, cell_WH)
    scores_W = scores_W + F.log_softmax(logits_WV, dim=1)[:, EOS]
    return F.pad(sequences_WT[scores_W.argmax(), 1:], (0, 1), value=EOS)


def usual_step(
    decoder: AttentionLSTMDecoder, features_WPE: Tensor, token_W: Tensor, hidden_WH: Tensor, cell_WH: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    attention = decoder.attention
    projected_WPA = plain(attention.features, features_WPE)
    energy_WP1 = plain(attention.score, torch.tanh(projected_WPA + plain(attention.query, hidden_WH)[:, None]))
    context_WE = (features_WPE * energy_WP1.softmax(1)).sum(1)
    assert decoder.gate is not None
    context_WE = torch.sigmoid(plain(decoder.gate, hidden_WH)) * context_WE
    cell = decoder.cells[0]
    hidden_WH, cell_WH = cell(torch.cat([decoder.embedding(token_W), context_WE], dim=1), (hidden_WH, cell_WH))
    return plain(decoder.output, hidden_WH), hidden_WH, cell_WH


def plain(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    """Multiply as `torch.nn.Linear` does, which our layers do in a way of their own."""
    return F.linear(x, layer.weight, layer.bias)


@dataclass(frozen=True)
class Variant:
    """A way to take the decoder's training step."""

    config: AttentionLSTMConfig = DECODER
    forcing: float | None = None  # the share of true words read, where not all are
    two_pass: bool = False
    plain_loop: bool = False  # autograd's own gradient through the steps


VARIANTS = {
    "": Variant(),
    ", plain loop": Variant(plain_loop=True),
    ", forcing 0.75 in turn": Variant(forcing=0.75),
    ", forcing 0.75 in two passes": Variant(forcing=0.75, two_pass=True),
    ", query after": Variant(DECODER.model_copy(update={"query": "after"})),
    ", query after, dot": Variant(DECODER.model_copy(update={"query": "after", "attention": "dot"})),
}


def bench_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """The decoder's training step in each precision, on ready features, beside a tutorial's way to write it."""
    device, shape = arguments.device, (arguments.images, arguments.captions, arguments.tokens)
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    steps = {"usual, fp32": usual_training_step(features_BPE, *shape[1:])}
    precisions: dict[str, str] = {"usual, fp32": "fp32"}
    for compiled in (False, True) if arguments.compile else (False,):
        for precision in PRECISIONS[device.type]:
            for name, variant in VARIANTS.items():
                label = precision + name + (", compiled" if compiled else "")
                step = training_step(variant.config, features_BPE, *shape[1:], precision, compiled, variant)
                steps[label], precisions[label] = step, precision
    seconds = alternate({name: timed(step, device) for name, step in steps.items()}, arguments.repeats)
    operations, rows = step_operations(*shape), []
    for name, values in seconds.items():
        entry = row(name, values, arguments.images * arguments.captions, "captions", seconds["usual, fp32"])
        if "query" not in name:
            entry["floor_ms"] = ceilings(device).floor_ms(precisions[name], operations)
        rows.append(entry)
    return {"rows": rows}


def forward_operations(images: int, captions: int, tokens: int) -> tuple[float, float]:
    """Count operations of `DECODER`'s products: of all steps, and of the cells' projection, done once an image.

    Each multiplication and each addition counts.
    """
    embed, hidden, attention = DECODER.embed_dim, DECODER.hidden_dim, DECODER.attention_dim
    rows, gates = images * captions * (tokens - 1), 4 * DECODER.hidden_dim
    of_a_row = gates * (embed + WIDTH) + hidden * (attention + gates + WIDTH) + hidden * VOCABULARY
    of_a_row += CELLS * (attention + WIDTH)  # scores and contexts
    return 2.0 * rows * of_a_row, 2.0 * images * CELLS * WIDTH * attention


def step_operations(images: int, captions: int, tokens: int) -> float:
    """Count operations of forward and backward, which is twice as much, but for the cells: they take no gradient."""
    of_steps, of_cells = forward_operations(images, captions, tokens)
    return 3 * of_steps + 2 * of_cells


def usual_training_step(features_BPE: Tensor, captions: int, tokens: int) -> Callable[[], None]:
    """Make a step as tutorials write it: a copy of the features for each caption, all anew at each step, autograd."""
    decoder = random_decoder(features_BPE.device).train()
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-4)
    tokens_NT = random_tokens((len(features_BPE) * captions, tokens), features_BPE.device)
    assert decoder.init_hidden is not None and decoder.init_cell is not None
    init_hidden, init_cell = decoder.init_hidden, decoder.init_cell

    def step() -> None:
        features_NPE = features_BPE.repeat_interleave(captions, 0)
        mean_NE = features_NPE.mean(1)
        hidden_NH, cell_NH = plain(init_hidden, mean_NE).tanh(), plain(init_cell, mean_NE).tanh()
        loss = torch.zeros((), device=features_BPE.device)
        for t in range(tokens - 1):
            logits_NV, hidden_NH, cell_NH = usual_step(decoder, features_NPE, tokens_NT[:, t], hidden_NH, cell_NH)
            loss = loss + F.cross_entropy(logits_NV, tokens_NT[:, t + 1])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
        optimiser.step()

    return step


def random_tokens(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Random captions of full length."""
    tokens_NT = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, shape, device=device)
    tokens_NT[..., 0], tokens_NT[..., -1] = SOS, EOS
    return tokens_NT


def training_step(
    config: AttentionLSTMConfig,
    features_BPE: Tensor,
    captions: int,
    tokens: int,
    precision: str,
    compiled: bool = False,
    variant: Variant | None = None,
) -> Callable[[], None]:
    """Make a step of a new decoder: cross-entropy and attention penalty, backward, clipping, AdamW."""
    device, shape, variant = features_BPE.device, (len(features_BPE), captions, tokens), variant or Variant()
    torch.manual_seed(0)
    decoder = build_decoder(config, VOCABULARY, features_BPE.shape[-1]).to(device).train()
    if variant.plain_loop:
        decoder.read = MethodType(LSTMStackDecoder.read, decoder)  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=1e-4, fused=True)
    tokens_BKT = random_tokens(shape, device)
    run = torch.compile(partial(unroll, decoder), dynamic=False) if compiled else partial(unroll, decoder)
    forcing = None
    if variant.forcing is not None:
        ratio = torch.tensor(variant.forcing, device=device)
        forcing = Forcing(ratio, torch.rand(shape, device=device), variant.two_pass)

    def step() -> None:
        set_float32_matmul(precision)
        with autocast(device, precision):
            readout_BKTR, attention_BKTP = run(features_BPE, tokens_BKT, forcing)
            loss = caption_loss(readout_BKTR, decoder.output, tokens_BKT, 0.0, attention_BKTP, 1.0)
        (loss.total / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return step
