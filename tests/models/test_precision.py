"""What is known of the arithmetic of devices."""

import pytest
import torch

from imgcap.models.precision import is_emulated


@pytest.mark.parametrize(
    ("computes", "emulated"),
    [
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, ["bf16", "fp16"]),
        ({"architecture": "x86_64", "avx512_bf16": True}, ["fp16"]),
        ({"architecture": "x86_64", "amx_bf16": True, "amx_fp16": True}, []),
        ({"architecture": "aarch64", "bf16": True, "fp16_arith": True}, []),
    ],
)
def test_processors_that_lack_a_precision(computes, emulated, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: computes, raising=False)
    cpu = torch.device("cpu")
    assert [name for name in ("fp32", "tf32", "bf16", "fp16") if is_emulated(cpu, name)] == emulated


def test_a_torch_that_can_t_tell_of_processors(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not is_emulated(torch.device("cpu"), "bf16")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_gpu_of_before_bfloat16(has_bf16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    cuda = torch.device("cuda")
    assert is_emulated(cuda, "bf16") is not has_bf16 and not is_emulated(cuda, "fp16")
