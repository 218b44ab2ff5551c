"""Dropout with our own bits: the right share is dropped, the mean stays, and the seed decides which."""

import pytest
import torch

from imgcap.models.kernels.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.83])
@pytest.mark.parametrize("shape", [(1000, 513), (7,), (3, 5, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_entries_are_dropped_or_scaled(p: float, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    y = Dropout(p)(x)
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert ((y == 0) | (y == scale)).all()
    if x.numel() > 1000:
        assert float((y == 0).double().mean()) == pytest.approx(p, abs=0.004)
        for rest in range(4):  # the four entries that share a number
            assert float((y.flatten()[rest::4] == 0).double().mean()) == pytest.approx(p, abs=0.008)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y.detach())


def test_neighbours_fall_independently() -> None:
    torch.manual_seed(1)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double() - 0.5
    for distance in range(1, 9):
        assert abs(float((dropped[:-distance] * dropped[distance:]).mean())) < 0.002


def test_the_seed_decides() -> None:
    x, layer = torch.ones(100), Dropout(0.5)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)


def test_it_is_off_in_evaluation_and_at_zero() -> None:
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
