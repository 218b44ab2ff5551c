"""The decoder: its training step, and beam search beside the usual search of one image at a time.

Dimensions: B images, K captions an image, T tokens, W beams, V vocabulary, P grid cells, E encoder width,
A attention width, H hidden width.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from imgcap.bench.timing import alternate, row, timed
from imgcap.config.schema import DecoderConfig
from imgcap.decode import beam_search
from imgcap.engine.precision import autocast, set_float32_matmul
from imgcap.models import build_decoder
from imgcap.models.decoders import AttentionLSTMDecoder
from imgcap.optim import caption_loss
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS

CELLS, WIDTH, VOCABULARY = 49, 2048, 4096  # ResNet-50 at 224 pixels, a Flickr30k vocabulary
DECODER = DecoderConfig()  # Show, Attend and Tell: 512, 512, 512, gate, mean initial state
NEVER = (PAD, SOS, EOS)  # random weights rarely end a caption: both searches go to the last step


def random_decoder(device: torch.device) -> AttentionLSTMDecoder:
    torch.manual_seed(0)
    decoder = build_decoder(DECODER, VOCABULARY, WIDTH)
    assert isinstance(decoder, AttentionLSTMDecoder)
    return decoder.to(device)


def bench_beam(arguments: argparse.Namespace) -> dict[str, Any]:
    device, words = torch.device(arguments.device), arguments.steps - 1  # the last step is <eos>
    decoder = random_decoder(device).eval()
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()

    def batched() -> torch.Tensor:
        return beam_search(decoder, features_BPE, arguments.beam, words, forbidden=NEVER).tokens_BL

    def image_by_image() -> torch.Tensor:
        found = [usual_search(decoder, features_PE, arguments.beam, words) for features_PE in features_BPE]
        return torch.stack(found)

    same = int((batched() == image_by_image()).all(1).sum())
    runs = {"image by image": timed(image_by_image, device), "batched": timed(batched, device)}
    seconds = alternate(runs, arguments.repeats)
    rows = [row(name, values, arguments.images, "captions") for name, values in seconds.items()]
    ratio = statistics.median(seconds["image by image"]) / statistics.median(seconds["batched"])
    return {"rows": rows, "ratio": round(ratio, 2), "same_captions": f"{same} of {arguments.images}"}


@torch.no_grad()
def usual_search(decoder: AttentionLSTMDecoder, features_PE: torch.Tensor, beam: int, max_length: int) -> torch.Tensor:
    """The search as tutorials write it: the beams of one image are a batch, each with a copy of the features.

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
    decoder: AttentionLSTMDecoder,
    features_WPE: torch.Tensor,
    token_W: torch.Tensor,
    hidden_WH: torch.Tensor,
    cell_WH: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    attention = decoder.attention
    projected_WPA = plain(attention.features, features_WPE)
    energy_WP1 = plain(attention.score, torch.tanh(projected_WPA + plain(attention.query, hidden_WH)[:, None]))
    context_WE = (features_WPE * energy_WP1.softmax(1)).sum(1)
    assert decoder.gate is not None
    context_WE = torch.sigmoid(plain(decoder.gate, hidden_WH)) * context_WE
    cell = decoder.cells[0]
    hidden_WH, cell_WH = cell(torch.cat([decoder.embedding(token_W), context_WE], dim=1), (hidden_WH, cell_WH))
    return plain(decoder.output, hidden_WH), hidden_WH, cell_WH


def plain(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """As `torch.nn.Linear` computes, which ours do in a way of their own."""
    return F.linear(x, layer.weight, layer.bias)


def bench_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward, loss, backward and AdamW of the decoder on ready features."""
    device = torch.device(arguments.device)
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    precisions = ["fp32", "bf16"] + (["tf32", "fp16"] if device.type == "cuda" else [])
    compiles = (False, True) if arguments.compile else (False,)
    runs = {
        precision + (", compiled" if compiled else ""): timed(
            training_step(DECODER, features_BPE, arguments.captions, arguments.tokens, precision, compiled), device
        )
        for compiled in compiles
        for precision in precisions
    }
    seconds = alternate(runs, arguments.repeats)
    captions = arguments.images * arguments.captions
    return {"rows": [row(name, values, captions, "captions") for name, values in seconds.items()]}


def training_step(
    config: DecoderConfig,
    features_BPE: torch.Tensor,
    captions: int,
    tokens: int,
    precision: str,
    compiled: bool = False,
) -> Callable[[], None]:
    """A step of a new decoder: cross-entropy and attention penalty, backward, clipping, AdamW."""
    device, shape = features_BPE.device, (len(features_BPE), captions, tokens)
    torch.manual_seed(0)
    decoder = build_decoder(config, VOCABULARY, features_BPE.shape[-1]).to(device).train()
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=1e-4, fused=True)
    tokens_BKT = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, shape, device=device)
    tokens_BKT[..., 0], tokens_BKT[..., -1] = SOS, EOS
    unroll = torch.compile(decoder.unroll, dynamic=False) if compiled else decoder.unroll

    def step() -> None:
        set_float32_matmul(precision)
        with autocast(device, precision):
            logits_BKTV, attention_BKTP = unroll(features_BPE, tokens_BKT)
            loss = caption_loss(logits_BKTV, tokens_BKT, 0.0, attention_BKTP, 1.0)
        (loss.total / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()

    return step
