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

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig
from imgcap.config.training import TrainConfig
from imgcap.decoding.search import beam_search
from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.lstm_stack import LSTMStackDecoder
from imgcap.models.precision import autocast, set_float32_matmul
from imgcap.ranks.world import World, init_ranks
from imgcap.types import EOS, PAD, SOS, Forcing, StepInputs
from tools.bench.counting import decoding_operations, training_operations
from tools.bench.engine import batch_of_features, decoder_engine, random_tokens, step_of
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


def search_all(decoder: Decoder, features_BPE: Tensor, precision: str, beam: int, words: int) -> Tensor:
    """Search all images at once, in a precision; return the best captions' tokens_BL."""
    set_float32_matmul(precision)
    with autocast(features_BPE.device, precision):
        return beam_search(decoder, features_BPE, beam, words, forbidden=NEVER).tokens_BL


def bench_beam(arguments: argparse.Namespace) -> dict[str, Any]:
    """Batched beam search in each precision against the usual one, in float32, of one image at a time."""
    device, words = arguments.device, arguments.steps - 1  # the last step is <eos>
    decoder = random_decoder(device).eval()
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    rows, same = [], []
    for beam in arguments.beams:

        def batched(precision: str, beam: int = beam) -> Tensor:
            return search_all(decoder, features_BPE, precision, beam, words)

        def image_by_image(beam: int = beam) -> Tensor:
            return torch.stack([usual_search(decoder, features_PE, beam, words) for features_PE in features_BPE])

        same.append(int((batched("fp32") == image_by_image()).all(1).sum()))
        runs = {"usual, fp32": timed(image_by_image, device)}
        runs |= {precision: timed(partial(batched, precision), device) for precision in PRECISIONS[device.type]}
        seconds = alternate(runs, arguments.repeats)
        rows_read = arguments.images * beam * arguments.steps
        operations = decoding_operations(DECODER, VOCABULARY, CELLS, WIDTH, arguments.images, rows_read)
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
    world, shape = init_ranks(str(arguments.device)), (arguments.images, arguments.captions, arguments.tokens)
    device = world.device
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    steps = {"usual, fp32": usual_training_step(features_BPE, *shape[1:])}
    computed: dict[str, tuple[str, AttentionLSTMConfig]] = {"usual, fp32": ("fp32", DECODER)}
    for compiling in ("off", "default") if arguments.compile else ("off",):
        for precision in PRECISIONS[device.type]:
            train = TrainConfig(precision=precision, compile=compiling, capture="off", attention_penalty=1.0)
            for name, variant in VARIANTS.items():
                label = precision + name + (", compiled" if compiling == "default" else "")
                step = training_step(variant.config, features_BPE, *shape[1:], train, world, variant)
                steps[label], computed[label] = step, (precision, variant.config)
    seconds = alternate({name: timed(step, device) for name, step in steps.items()}, arguments.repeats)
    read = arguments.images * arguments.captions * (arguments.tokens - 1)
    rows = []
    for name, values in seconds.items():
        precision, config = computed[name]
        operations = training_operations(config, VOCABULARY, CELLS, WIDTH, arguments.images, read)
        floor = {"floor_ms": ceilings(device).floor_ms(precision, operations)}
        entry = row(name, values, arguments.images * arguments.captions, "captions", seconds["usual, fp32"])
        rows.append(entry | floor)
    return {"rows": rows}


def usual_training_step(features_BPE: Tensor, captions: int, tokens: int) -> Callable[[], None]:
    """Make a step as tutorials write it: a copy of the features for each caption, all anew at each step, autograd."""
    decoder = random_decoder(features_BPE.device).train()
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-4)
    tokens_NT = random_tokens((len(features_BPE) * captions, tokens), VOCABULARY, features_BPE.device)
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


def training_step(
    config: DecoderConfig,
    features_BPE: Tensor,
    captions: int,
    tokens: int,
    train: TrainConfig,
    world: World,
    variant: Variant | None = None,
) -> Callable[[], None]:
    """Make a step of a new decoder through the project's engine, in the precision of `train` whoever ran before."""
    device, shape, variant = world.device, (len(features_BPE), captions, tokens), variant or Variant()
    engine = decoder_engine(config, train, world, VOCABULARY, features_BPE.shape[-1])
    decoder = engine.raw_model.decoder
    if variant.plain_loop:
        decoder.read = MethodType(LSTMStackDecoder.read, decoder)  # type: ignore[method-assign]
    forcing = None
    if variant.forcing is not None:
        ratio = torch.tensor(variant.forcing, device=device)
        forcing = Forcing(ratio, torch.rand(shape, device=device), variant.two_pass)
    batch = batch_of_features(features_BPE, random_tokens(shape, VOCABULARY, device))
    take = step_of(engine, batch, StepInputs(forcing))

    def step() -> None:
        set_float32_matmul(train.precision)
        take()

    return step
