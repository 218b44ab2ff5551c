"""Every decoder with the kernels against itself without them: trained, and asked a token at a time."""

import pytest
import torch
from torch import nn
from untrained import predict

from imgcap.config.model import ModelConfig
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.kernels.gpu import dispatch
from imgcap.models.losses import caption_loss
from imgcap.types import PAD, SOS

B, K, T, V, P, E = 2, 2, 5, 23, 6, 10
SIZES = {"embed_dim": 8, "hidden_dim": 9, "attention_dim": 5, "dropout": 0.0}
DECODERS = [
    {"type": "attention_lstm", "output": "deep"},
    {"type": "attention_lstm", "layers": 2},
    {"type": "attention_lstm", "layers": 2, "gate": False, "output": "deep", "feature_dim": 7},
    {"type": "attention_lstm", "query": "after", "layers": 2},
    {"type": "attention_lstm", "query": "after", "gate": False, "output": "deep"},
    {"type": "attention_lstm", "query": "after", "attention": "dot"},
    {"type": "lstm", "layers": 2},
]


def model_and_batch(options: dict, device: torch.device):
    torch.manual_seed(0)
    model = build_decoder(ModelConfig(decoder=SIZES | options).decoder, V, E).to(device)
    for parameter in model.parameters():  # initial zeros would hide a bias that is used twice or not at all
        nn.init.normal_(parameter, std=0.3)
    features_BPE, tokens_BKT = torch.randn(B, P, E, device=device), torch.randint(4, V, (B, K, T), device=device)
    tokens_BKT[..., 0] = SOS
    tokens_BKT[1, 1, 2:] = PAD
    return model, features_BPE, tokens_BKT


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_training_equals_that_of_the_reference(options, everywhere, monkeypatch):
    model, features_BPE, tokens_BKT = model_and_batch(options, everywhere)
    learned = [features_BPE.requires_grad_(), *model.parameters()]
    results = []
    for devices in ({"cuda", "cpu"}, set()):
        monkeypatch.setattr(dispatch, "DEVICES", devices)
        readout_BKTR, attention_BKTP = unroll(model, features_BPE, tokens_BKT)
        loss = caption_loss(readout_BKTR, model.output, tokens_BKT, 0.1, attention_BKTP, 1.0, count_correct=True)
        assert loss.total.requires_grad
        results.append((loss, torch.autograd.grad(loss.total, learned)))  # all learn, as DDP expects
    torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("options", DECODERS, ids=str)
@torch.no_grad()
def test_a_step_equals_that_of_the_reference(options, everywhere, monkeypatch):
    model, features_BPE, tokens_BKT = model_and_batch(options, everywhere)
    whole, _ = predict(model, features_BPE, tokens_BKT)
    monkeypatch.setattr(dispatch, "DEVICES", {"cuda", "cpu"} - {everywhere.type})
    expected, _ = predict(model, features_BPE, tokens_BKT)
    monkeypatch.setattr(dispatch, "DEVICES", {"cuda", "cpu"})
    state, logits = model.init(features_BPE, K, T), []
    for token_BK in tokens_BKT[..., :-1].unbind(-1):
        logits_BKV, state, _ = model.step(state, token_BK)
        logits.append(logits_BKV)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.stack(logits, 2), expected, atol=1e-5, rtol=1e-4)


def test_others_take_torchs_operations(monkeypatch):
    x = torch.zeros(2)
    assert not dispatch.fused(x), "a CPU's"
    monkeypatch.setattr(dispatch, "DEVICES", {"cpu"})
    assert not dispatch.fused(x.double()) and not dispatch.fused(x, cells=dispatch.CELLS + 1)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    dispatch._runs_triton.cache_clear()
    assert not dispatch.fused(x), "no Triton"
    dispatch._runs_triton.cache_clear()


def test_a_kernel_that_can_t_be_built_is_told_of_once(monkeypatch):
    pytest.importorskip("triton")
    from imgcap.models.kernels.gpu import cell

    def fails(*_):
        raise RuntimeError("Failed to find C compiler.\nMore of it.")

    monkeypatch.setattr(dispatch, "DEVICES", {"cpu"})
    monkeypatch.setattr(cell, "lstm_cell", fails)
    dispatch._runs_triton.cache_clear()
    with pytest.warns(UserWarning, match=r"torch's slower ones are: Failed to find C compiler\.$"):
        assert not dispatch.fused(torch.zeros(2))
    assert not dispatch.fused(torch.zeros(2))
    dispatch._runs_triton.cache_clear()
