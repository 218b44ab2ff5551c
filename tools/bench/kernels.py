"""The GPU's own kernels beside the reference that defines them: the same functions, with the kernels and without.

Dimensions: B images, K captions an image, T tokens, P grid cells, E encoder width, A attention width, R readout width.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from imgcap.config.model import RecurrentConfig
from imgcap.models.decoders.attention import AdditiveAttention
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.kernels.linear import Linear
from imgcap.models.losses import caption_loss
from imgcap.models.precision import autocast, set_float32_matmul
from tools.bench.counting import training_operations
from tools.bench.engine import random_tokens

KERNELS = "imgcap.models.kernels.gpu.dispatch"
# The modules with a name `DEVICES`, on which they do things in a way of their own; without any, all is the reference.
SWITCHES = (KERNELS, "imgcap.decoding.captured")
SMOOTHING = 0.1


class Size(NamedTuple):
    """The sizes of a training step, and the decoder that it is of."""

    images: int
    captions: int
    tokens: int
    cells: int
    width: int
    vocabulary: int
    decoder: RecurrentConfig

    @property
    def steps(self) -> int:
        """Steps of all captions."""
        return self.images * self.captions * (self.tokens - 1)


class Run(NamedTuple):
    """Forward and backward of something that has kernels: `results` computes its outputs and gradients."""

    results: Callable[[], Sequence[Tensor]]
    operations: float


def are_here() -> bool:
    """Whether there are kernels beside the reference."""
    return importlib.util.find_spec(KERNELS.rpartition(".")[0]) is not None


@contextmanager
def reference() -> Iterator[None]:
    """Compute by the reference alone, launched as it is written: without the kernels, and search without graphs."""
    with ExitStack() as stack:
        for name in SWITCHES:
            if importlib.util.find_spec(name.rpartition(".")[0]) and importlib.util.find_spec(name):
                stack.enter_context(patch.object(importlib.import_module(name), "DEVICES", ()))
        yield


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative distance of a tensor from the expected one, by their norms."""
    pairs = ((a.detach().double(), b.detach().double()) for a, b in zip(found, expected, strict=True))
    return max(float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs)


def _decoder(size: Size, device: torch.device, precision: str) -> Run:
    """All steps of a decoder, without its head."""
    torch.manual_seed(0)
    decoder = build_decoder(size.decoder, size.vocabulary, size.width).to(device).eval()
    features_BPE = torch.randn(size.images, size.cells, size.width, device=device).relu()
    tokens_BKT = random_tokens((size.images, size.captions, size.tokens), size.vocabulary, device)
    upstream: list[Tensor] = []

    def results() -> list[Tensor]:
        with autocast(device, precision):
            readout_BKTR, _ = unroll(decoder, features_BPE, tokens_BKT)
        upstream[:] = upstream or [torch.randn_like(readout_BKTR)]
        used = [p for name, p in decoder.named_parameters() if not name.startswith(("output.", "attention.score.bias"))]
        return [readout_BKTR, *torch.autograd.grad([readout_BKTR], used, upstream)]

    return Run(results, training_operations(size.decoder, 0, size.cells, size.width, size.images, size.steps))


def _attention(size: Size, device: torch.device, precision: str) -> Run:
    """Additive attention of all steps at once."""
    torch.manual_seed(0)
    width = size.decoder.hidden_dim
    attention = AdditiveAttention(size.width, width, width).to(device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    features_BPE = torch.randn(size.images, size.cells, size.width, device=device, dtype=dtype)
    of_cells, of_steps = (size.images, size.cells, width), (size.images, size.steps // size.images, width)
    projected_BPA, query_BMA = (
        torch.randn(*s, device=device, dtype=dtype).requires_grad_() for s in (of_cells, of_steps)
    )
    upstream_BME = torch.randn(*of_steps[:2], size.width, device=device, dtype=dtype)

    def results() -> list[Tensor]:
        with autocast(device, precision):
            context_BME, attention_BMP = attention(features_BPE, projected_BPA, query_BMA)
        wanted = [projected_BPA, query_BMA, attention.score.weight]
        return [context_BME, attention_BMP, *torch.autograd.grad([context_BME], wanted, [upstream_BME])]

    return Run(results, 6.0 * size.steps * size.cells * (width + size.width))


def _loss(size: Size, device: torch.device, precision: str) -> Run:
    """The head and the smoothed cross-entropy of all steps."""
    torch.manual_seed(0)
    width = size.decoder.hidden_dim
    head = Linear(width, size.vocabulary).to(device)
    tokens_BKT = random_tokens((size.images, size.captions, size.tokens), size.vocabulary, device)
    readout_BKTR = torch.randn(size.images, size.captions, size.tokens - 1, width, device=device, requires_grad=True)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def results() -> list[Tensor]:
        loss = caption_loss(readout_BKTR.to(dtype), head, tokens_BKT, SMOOTHING)
        return [loss.total, *torch.autograd.grad([loss.total], [readout_BKTR, head.weight, head.bias])]

    return Run(results, 6.0 * size.steps * width * size.vocabulary)


PARTS: dict[str, Callable[[Size, torch.device, str], Run]] = {
    "attention LSTM": _decoder,
    "attention after": _attention,
    "head and loss": _loss,
}


def run_of(name: str, size: Size, device: torch.device, precision: str) -> Run:
    """Make one of `PARTS`, in a precision."""
    set_float32_matmul(precision)
    return PARTS[name](size, device, precision)
