"""Both attentions against their formulas, values and gradients, in blocks of any size."""

import pytest
import torch

from imgcap.models.decoders import attention
from imgcap.models.decoders.attention import AdditiveAttention, Attention, DotAttention

B, K, P, E, H, A = 3, 5, 4, 6, 7, 8


def operands(module: Attention) -> list[torch.Tensor]:
    cells_BPE = torch.randn(B, P, E, dtype=torch.float64, requires_grad=True)
    state_BKH = torch.randn(B, K, H, dtype=torch.float64, requires_grad=True)
    return [cells_BPE, state_BKH, *module.parameters()]


@pytest.mark.parametrize("block", [1, P * A, 2 * P * A, 2 * K * P * A, 1 << 20])
def test_additive_attention_is_bahdanaus(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", {True: block, False: block})
    torch.manual_seed(0)
    module = AdditiveAttention(E, H, A).double()
    inputs = operands(module)
    cells_BPE, state_BKH = inputs[:2]
    projected_BPA, query_BKA = module.features(cells_BPE), module.query(state_BKH)
    context_BKE, weights_BKP = module(cells_BPE, projected_BPA, query_BKA)
    energy_BKP = module.score((projected_BPA[:, None] + query_BKA[:, :, None]).tanh()).squeeze(-1)
    torch.testing.assert_close(module.scores(projected_BPA, query_BKA), energy_BKP)
    expected_BKP = energy_BKP.exp() / energy_BKP.exp().sum(-1, keepdim=True)
    expected_BKE = torch.einsum("bkp,bpe->bke", expected_BKP, cells_BPE)
    torch.testing.assert_close((weights_BKP, context_BKE), (expected_BKP, expected_BKE))
    scores = [s.square().sum() for s in (module.scores(projected_BPA, query_BKA), energy_BKP)]
    found, wanted = (torch.autograd.grad(score, inputs, retain_graph=True) for score in scores)
    torch.testing.assert_close(found, wanted)


def test_dot_attention_is_scaled() -> None:
    torch.manual_seed(0)
    module = DotAttention(E, H, A).double()
    cells_BPE, state_BKH = operands(module)[:2]
    projected_BPA, query_BKA = module.features(cells_BPE), module.query(state_BKH)
    expected_BKE = torch.nn.functional.scaled_dot_product_attention(query_BKA, projected_BPA, cells_BPE)
    torch.testing.assert_close(module(cells_BPE, projected_BPA, query_BKA)[0], expected_BKE)
