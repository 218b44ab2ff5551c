"""Linear layers by oneDNN, beside torch's own."""

import platform

import pytest
import torch
import torch.nn.functional as F

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


@pytest.mark.skipif(not ON_X86, reason="elsewhere a weight stays as it is")
def test_a_weight_of_float32_is_laid_out() -> None:
    assert packed(torch.randn(32, 16)).is_mkldnn
    assert not packed(torch.randn(32, 16, dtype=torch.float64)).is_mkldnn
