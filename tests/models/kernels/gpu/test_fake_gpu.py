"""A training step on a GPU that isn't there: every tensor is on it, and nothing is read on the host.

Tensors are fake: they have a shape, a dtype and a device, and no numbers. To ask one for its number, or to compute with
one of the CPU, is an error. Kernels are not launched; where their tensors lie is looked at.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node

from imgcap.config.model import ModelConfig
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.kernels.gpu import dispatch
from imgcap.models.losses import caption_loss
from imgcap.models.precision import autocast
from imgcap.types import Forcing

B, K, T, V, P, E = 3, 2, 5, 30, 6, 10
SIZES = {"embed_dim": 8, "hidden_dim": 16, "attention_dim": 12, "dropout": 0.3}
DECODERS = [
    {"type": "attention_lstm", "output": "deep", "init_state": "zeros"},
    {"type": "attention_lstm", "layers": 2, "gate": False},
    {"type": "attention_lstm", "layers": 3, "feature_dim": 7},
    {"type": "attention_lstm", "query": "after", "layers": 2, "output": "deep"},
    {"type": "attention_lstm", "query": "after", "attention": "dot"},
    {"type": "lstm", "layers": 2, "image_layers": 1},
    {"type": "transformer", "layers": 2, "width": 16, "heads": 2, "image_layers": 1, "tie_embeddings": False},
    {"type": "transformer", "layers": 1, "width": 16, "heads": 4},
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A fake GPU; gives the names of the kernels that would have been launched on it."""
    pytest.importorskip("triton")
    from imgcap.models.kernels.gpu import attention, cell, cross_entropy

    launched: list[str] = []

    def look(kernel, grid, *arguments, warps=4, **sizes):
        assert all(isinstance(number, int) and number > 0 for number in grid)
        assert all(x.device.type == "cuda" for x in arguments if isinstance(x, Tensor))
        launched.append(kernel.__name__)

    for module in (attention, cell, cross_entropy):
        monkeypatch.setattr(module, "launch", look)
    monkeypatch.setattr(dispatch, "_runs_triton", lambda device: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode():
        yield launched


@torch.no_grad()
def go_back(loss: Tensor) -> set[Tensor]:
    """Call each node of a graph, the last first, as autograd does, which would want the GPU; return the leaves."""
    readers: dict[Node, int] = {}
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None:
                readers[node] = readers.get(node, 0) + 1
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)
    arrived: dict[Node, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready, leaves = [loss.grad_fn], set()
    while ready:
        node = ready.pop()
        if hasattr(node, "variable"):
            assert arrived[node][0].device == node.variable.device
            leaves.add(node.variable)
            continue
        given, edges = arrived.pop(node, {}), [edge for edge in node.next_functions if edge[0] is not None]
        arguments = [given.get(index) for index in range(len(node._input_metadata))]
        if not given:
            gradients = [None] * len(edges)
        elif hasattr(node, "apply"):  # a Function of Python's: of what isn't a tensor it has no edge, but a gradient
            gradients = [x for x, needed in zip(node.apply(*arguments), node.needs_input_grad, strict=True) if needed]
        else:
            gradients = node(*arguments)
            gradients = gradients if isinstance(gradients, tuple) else [gradients]
            gradients = [x for x, edge in zip(gradients, node.next_functions, strict=True) if edge[0] is not None]
        for gradient, (following, index) in zip(gradients, edges, strict=True):
            if gradient is not None:
                expected = following._input_metadata[index]
                gradient = gradient.sum_to_size(expected.shape).to(expected.dtype)  # a bias was broadcast
                sums = arrived.setdefault(following, {})
                sums[index] = sums[index] + gradient if index in sums else gradient
            readers[following] -= 1
            if not readers[following]:
                ready.append(following)
    return leaves


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_a_training_step_stays_on_the_gpu(options, forced, precision, gpu):
    with torch.device("cuda"):
        decoder = build_decoder(ModelConfig(decoder=SIZES | options).decoder, V, E)
        features_BPE, tokens_BKT = torch.randn(B, P, E), torch.zeros(B, K, T, dtype=torch.int64)
        coins = Forcing(torch.tensor(0.5), torch.rand(B, K, T), two_pass=bool(len(options) % 2))
    with autocast(torch.device("cuda"), precision):
        readout_BKTR, attention_BKTP = unroll(decoder, features_BPE, tokens_BKT, coins if forced else None)
    assert readout_BKTR.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    loss = caption_loss(readout_BKTR, decoder.output, tokens_BKT, 0.1, attention_BKTP, 1.0, count_correct=True)
    assert all(x.device.type == "cuda" for x in loss)
    leaves = go_back(loss.total)
    assert {id(x) for x in leaves} == {id(parameter) for parameter in decoder.parameters()}
    of_cells = {"lstm_cell", "lstm_cell_backward"} if options["type"] != "transformer" else set()
    assert of_cells | {"cross_entropy"} <= set(gpu)


def test_a_step_of_the_recurrence_is_few_launches(gpu):
    """Five a step forward and five back, two of which are torch's matrix products; all else is over all steps."""
    with torch.device("cuda"):
        decoder = build_decoder(ModelConfig(decoder=SIZES | {"output": "deep"}).decoder, V, E)
        features_BPE, tokens_BKT = torch.randn(B, P, E), torch.zeros(B, K, T, dtype=torch.int64)
    readout_BKTR, _ = unroll(decoder, features_BPE, tokens_BKT)
    assert sorted(gpu) == sorted(["attention_weights", "attention_context", "lstm_cell"] * (T - 1))
    gpu.clear()
    go_back(readout_BKTR.sum())
    each = ["lstm_cell_backward", "attention_context_backward", "attention_query_backward"]
    assert sorted(gpu) == sorted([*each * (T - 1), "attention_cells_backward"])
