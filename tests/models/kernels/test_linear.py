"""Linear layers by oneDNN, beside torch's own."""

import platform

import pytest
import torch
import torch.nn.functional as F

from imgcap.models.kernels import linear as library
from imgcap.models.kernels.linear import linear, packed

ON_X86 = platform.machine() in ("x86_64", "AMD64")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [1, 45, 320])
def test_a_weight_that_is_laid_out_multiplies_as_before(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    for width, outputs in ((64, 96), (512, 512), (40, 33)):
        x, weight, bias = (torch.randn(size).to(dtype) for size in ((rows, width), (outputs, width), (outputs,)))
        weight *= width**-0.5
        laid_out = packed(weight)
        assert laid_out.dtype == dtype
        found = linear(x.view(1, rows, width), laid_out, bias)
        torch.testing.assert_close(found[0], F.linear(x, weight, bias))


@pytest.mark.skipif(not ON_X86, reason="elsewhere all of it is torch's own")
@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("outputs", [33, 8])
def test_values_and_gradients_are_those_of_torch_by_either_library(outputs, by_onednn, monkeypatch) -> None:
    monkeypatch.setattr(library, "_ONEDNN_IS_FASTER", by_onednn)
    torch.manual_seed(0)
    given = [torch.randn(size, requires_grad=True) for size in ((5, 4, 24), (outputs, 24), (outputs,))]
    d_y = torch.randn(4, 5, outputs).transpose(0, 1)
    results = [(y := multiply(*given), *torch.autograd.grad(y, given, d_y)) for multiply in (linear, F.linear)]
    torch.testing.assert_close(*results)


@pytest.mark.skipif(not ON_X86, reason="elsewhere a weight stays as it is")
def test_a_weight_of_float32_is_laid_out() -> None:
    assert packed(torch.randn(32, 16)).is_mkldnn
    assert not packed(torch.randn(32, 16, dtype=torch.float64)).is_mkldnn
