"""All steps by kernels against the reference in float64: every variant of the decoder, values and gradients."""

import pytest
import torch
from precise import assert_near
from torch.utils._pytree import tree_leaves, tree_map_only

from imgcap.models.kernels import attention_lstm as reference
from imgcap.models.kernels.attention_lstm import Attending, Inputs, Layer
from imgcap.models.kernels.gpu import attention_lstm as gpu

VARIANTS = {
    "gate": {},
    "plain": {"gate": False},
    "early": {"gate": False, "early": True},
    "two layers": {"layers": 2, "dropout": True},
    "three layers, early": {"layers": 3, "gate": False, "early": True, "dropout": True},
    "one caption of one image": {"images": 1, "captions": 1, "steps": 1},
    "197 cells": {"images": 1, "captions": 2, "cells": 197, "steps": 2},
}


def inputs(
    images=2,
    captions=2,
    steps=3,
    cells=7,
    width=50,
    hidden=40,
    asked=24,
    layers=1,
    gate=True,
    early=False,
    dropout=False,
) -> Inputs:
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random) / 2

    N, G, X = images * captions, 4 * hidden, 4 * hidden if early else width
    Q = asked + G + (X if gate else 0)
    context_GX = None if early else draw(G, X)
    weights = (
        draw(images, cells, X),
        draw(images, cells, asked),
        draw(asked),
        draw(1),
        context_GX,
        draw(Q, hidden),
        draw(Q),
    )
    stack = []
    for index in range(layers):
        below = (draw(G, hidden), draw(G)) if index else (None, None)
        before = (draw(G, hidden), draw(G)) if index < layers - 1 else (None, None)
        kept_MH = 2.0 * (draw(steps * N, hidden) > 0) if dropout and index else None
        stack.append(Layer(*below, *before, kept_MH))
    states = draw(layers, N, hidden), draw(layers, N, hidden)
    return Inputs(draw(steps * N, G), *states, Attending(*weights), stack)


def learning(given: Inputs, dtype: torch.dtype, device: torch.device) -> Inputs:
    """The same in a dtype, cell states and dropout in float32 at least; all but the dropout learns."""
    exact = torch.promote_types(dtype, torch.float32)
    moved: Inputs = tree_map_only(torch.Tensor, lambda x: x.detach().to(device, dtype).requires_grad_(), given)
    layers = [
        layer if layer.kept_MH is None else layer._replace(kept_MH=layer.kept_MH.detach().to(exact))
        for layer in moved.layers
    ]
    return moved._replace(cell_LNH=given.cell_LNH.detach().to(device, exact).requires_grad_(), layers=layers)


def unroll(given: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The reference, with all captions at each step."""
    captions = given.hidden_LNH.shape[1]
    return reference.unroll(given, [captions] * (len(given.word_gates_MG) // captions))


CASES = [(variant, dtype) for variant in VARIANTS for dtype in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("variant", "dtype"), [*CASES, ("gate", torch.float16)], ids=str)
def test_equals_the_reference(variant, dtype, device):
    given = learning(inputs(**VARIANTS[variant]), dtype, device)
    in_float64 = learning(given, torch.float64, device)
    found, expected = gpu.unroll(given), unroll(in_float64)
    assert [x.dtype for x in found] == [dtype, torch.float32, dtype]
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape and (not y.numel() or assert_near(x, y, dtype) is None)
    weights, results = [torch.randn_like(y) for y in expected], []
    for run, of in ((found, given), (expected, in_float64)):
        total = sum((x.to(weight.dtype) * weight).sum() for x, weight in zip(run, weights, strict=True))
        results.append(torch.autograd.grad(total, [x for x in tree_leaves(of) if x is not None and x.requires_grad]))
    for x, y in zip(*results, strict=True):
        assert_near(x, y, dtype, factor=2)  # a step's rounding goes through all steps before


def test_a_result_that_nobody_reads_has_no_share(device):
    """The gradient of the hidden states alone, where attention and context have none."""
    given = learning(inputs(layers=2), torch.float32, device)
    in_float64 = learning(given, torch.float64, device)
    wanted = [learned.attending.top_QH for learned in (given, in_float64)]
    found, expected = gpu.unroll(given)[0].square().sum(), unroll(in_float64)[0].square().sum()
    assert_near(torch.autograd.grad(found, wanted[0])[0], torch.autograd.grad(expected, wanted[1])[0], torch.float32)
