"""Additive attention by kernels against its formula in float64, values and gradients, at sizes no block fits."""

import pytest
import torch
from precise import assert_near, exact

from imgcap.models.kernels.gpu.attention import additive_attention

# images, queries an image, cells, attention width, width of the values
SIZES = [(1, 1, 7, 40, 40), (2, 3, 49, 33, 130), (1, 2, 197, 40, 50), (1, 35, 9, 20, 24)]
CASES = [(sizes, dtype) for sizes in SIZES for dtype in (torch.float32, torch.bfloat16)]


def operands(sizes: tuple[int, ...], gate: bool, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor | None]:
    B, K, P, A, X = sizes
    shapes = [(B, P, X), (B, P, A), (B, K, A), (A,), (1,), (B, K, X)]
    random = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=random).to(device, dtype).requires_grad_() for shape in shapes]
    return tensors if gate else [*tensors[:5], None]


def formula(values_BPX, projected_BPA, query_BKA, score_A, score_bias_1, gate_BKX):
    scores_BKP = (projected_BPA[:, None] + query_BKA[:, :, None]).tanh() @ score_A + score_bias_1
    attention_BKP = scores_BKP.softmax(-1)
    context_BKX = attention_BKP @ values_BPX
    return context_BKX if gate_BKX is None else context_BKX * gate_BKX.sigmoid(), attention_BKP


def gradients(found, by, inputs):
    """Gradients of the weighted sums of two results."""
    total = sum((x * weight.to(x.dtype)).to(torch.promote_types(x.dtype, torch.float32)).sum() for x, weight in by)
    return torch.autograd.grad(total, [x for x in inputs if x is not None])


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize(("sizes", "dtype"), [*CASES, (SIZES[0], torch.float16)], ids=str)
def test_equals_the_formula(sizes, gate, dtype, device):
    inputs = operands(sizes, gate, dtype, device)
    in_float64 = exact(inputs)
    found, expected = additive_attention(*inputs), formula(*in_float64)
    assert found[0].dtype == dtype and found[1].dtype == torch.float32
    for x, y in zip(found, expected, strict=True):
        assert_near(x, y, dtype)
    weights = [torch.randn_like(x) for x in expected]
    d_found = gradients(found, zip(found, weights, strict=True), inputs)
    d_expected = gradients(expected, zip(expected, weights, strict=True), in_float64)
    for name, x, y in zip(["values", "projected", "query", "score", "bias", "gate"], d_found, d_expected, strict=False):
        if name == "bias":
            assert x.item() == 0 and abs(y.item()) < 1e-9, "the softmax does not see it"
        else:
            assert_near(x, y, dtype)


def test_a_saturated_tanh_has_no_gradient_and_no_nan(device):
    inputs = operands((1, 2, 7, 16, 16), True, torch.float32, device)
    with torch.no_grad():
        inputs[1].mul_(1e4)
        inputs[5].mul_(1e4)
    read_BKX, attention_BKP = additive_attention(*inputs)
    expected_BKX, expected_BKP = formula(*exact(inputs))
    assert_near(attention_BKP, expected_BKP, torch.float32)
    assert_near(read_BKX, expected_BKX, torch.float32)
    d_projected_BPA, d_query_BKA, d_gate_BKX = torch.autograd.grad(read_BKX.sum(), [inputs[1], inputs[2], inputs[5]])
    assert all(x.isfinite().all() for x in (d_projected_BPA, d_query_BKA, d_gate_BKX))
    assert (d_query_BKA == 0).all() and (d_projected_BPA == 0).all()


def test_a_gradient_of_one_result_alone(device):
    inputs = operands((2, 3, 9, 8, 8), True, torch.float32, device)
    for result in range(2):
        in_float64 = exact(inputs)
        found = torch.autograd.grad(additive_attention(*inputs)[result].square().sum(), inputs[1])
        expected = torch.autograd.grad(formula(*in_float64)[result].square().sum(), in_float64[1])
        assert_near(found[0], expected[0], torch.float32)


def test_two_runs_give_the_same_bits(device):
    inputs = operands((2, 5, 49, 40, 40), True, torch.float32, device)
    runs = []
    for _ in range(2):
        results = additive_attention(*inputs)
        runs.append([*results, *torch.autograd.grad(results[0].square().sum(), inputs)])
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))
