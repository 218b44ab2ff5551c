"""The kernels of a GPU: on one where there is one, by Triton's interpreter on the CPU elsewhere."""

import pytest
import torch

from imgcap.models.kernels.gpu import dispatch


@pytest.fixture
def device() -> torch.device:
    pytest.importorskip("triton")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> torch.device:
    """The kernels take over on a CPU as they do on a GPU."""
    monkeypatch.setattr(dispatch, "DEVICES", frozenset({"cuda", "cpu"}))
    return device
