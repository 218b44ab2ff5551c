"""The head's loss by a kernel against torch's cross-entropy in float64: gradients, padding, ranks with ties."""

import pytest
import torch
import torch.nn.functional as F
from precise import assert_near
from torch import nn

from imgcap.models import losses
from imgcap.models.losses import RANKS, caption_loss
from imgcap.types import PAD

R = 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("vocabulary", "tokens"), [(13, 5), (6999, 3), (2048, 2)])
def test_equals_torchs_and_its_gradients(vocabulary, tokens, smoothing, dtype, everywhere, monkeypatch):
    monkeypatch.setattr(losses, "FUSED_BLOCK", 5 * vocabulary)  # more than one block, the last one shorter
    random = torch.Generator().manual_seed(0)
    tokens_BKT = torch.randint(4, vocabulary, (2, 2, tokens), generator=random).to(everywhere)
    tokens_BKT[1, :, -1] = PAD
    head = nn.Linear(R, vocabulary, device=everywhere)
    readout_BKTR = torch.randn(2, 2, tokens - 1, R, generator=random).to(everywhere, dtype).requires_grad_()
    learned = [readout_BKTR, head.weight, head.bias]
    loss = caption_loss(readout_BKTR, head, tokens_BKT, smoothing, count_correct=True)
    exact = [x.detach().to(dtype).double().requires_grad_() for x in learned]
    logits_MV = F.linear(*exact).flatten(0, 2)
    targets_M = tokens_BKT[..., 1:].flatten()
    expected = F.cross_entropy(logits_MV, targets_M, ignore_index=PAD, label_smoothing=smoothing, reduction="sum")
    plain = F.cross_entropy(logits_MV, targets_M, ignore_index=PAD, reduction="sum")
    assert loss.total.dtype == torch.float32
    assert_near(loss.total, expected, dtype)
    assert_near(loss.cross_entropy, plain, dtype)
    found = torch.autograd.grad(3 * loss.total, learned)
    for x, y in zip(found, torch.autograd.grad(3 * expected, exact), strict=True):
        assert_near(x, y, dtype)


def test_ranks_are_a_stable_sorts(everywhere):
    V = 17
    random = torch.Generator().manual_seed(0)
    logits_BKTV = (2 * torch.randn(4, 3, 6, V, generator=random)).round().to(everywhere)  # many ties
    tokens_BKT = torch.randint(0, V, (4, 3, 7), generator=random).to(everywhere)
    head = nn.Linear(V, V, device=everywhere)
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    targets_BKT1 = tokens_BKT[..., 1:, None]
    order_BKTV = logits_BKTV.sort(dim=-1, descending=True, stable=True).indices
    hit_BKTV = (order_BKTV == targets_BKT1) & (targets_BKT1 != PAD)
    expected = torch.stack([hit_BKTV[..., :rank].sum() for rank in RANKS])
    assert 0 < expected[0] < expected[1]
    assert torch.equal(caption_loss(logits_BKTV, head, tokens_BKT, 0.1, count_correct=True).correct, expected)


def test_padding_is_zero_with_a_zero_gradient(everywhere):
    readout_BKTR = torch.randn(2, 1, 3, R, device=everywhere, requires_grad=True)
    tokens_BKT = torch.full((2, 1, 4), PAD, device=everywhere)
    loss = caption_loss(readout_BKTR, nn.Linear(R, 50, device=everywhere), tokens_BKT, 0.1, count_correct=True)
    assert loss.total == 0 and loss.cross_entropy == 0 and not loss.correct.any()
    assert not torch.autograd.grad(loss.total, readout_BKTR)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_captions_count_by_their_weights_and_what_is_never_drawn_not_at_all(dtype, everywhere):
    random = torch.Generator().manual_seed(0)
    tokens_BKT = torch.randint(4, 50, (3, 2, 5), generator=random).to(everywhere)
    tokens_BKT[1, :, -1], tokens_BKT[2, 1] = PAD, PAD
    head = nn.Linear(R, 50, device=everywhere)
    head.bias.data[:2] = -torch.inf
    weights_BK = torch.tensor([[0.5, -1.5], [2.0, 0.0], [-0.25, 1.0]], device=everywhere)
    readout_BKTR = torch.randn(3, 2, 4, R, generator=random).to(everywhere, dtype).requires_grad_()
    learned = [readout_BKTR, head.weight, head.bias]
    loss = caption_loss(readout_BKTR, head, tokens_BKT, 0.0, count_correct=True, weights_BK=weights_BK)
    exact = [x.detach().to(dtype).double().requires_grad_() for x in learned]
    logits_BVKT, targets_BKT = F.linear(*exact).movedim(-1, 1), tokens_BKT[..., 1:]
    each_BKT = F.cross_entropy(logits_BVKT, targets_BKT, ignore_index=PAD, reduction="none")
    expected = (each_BKT.sum(-1) * weights_BK).sum()
    assert_near(loss.total, expected, dtype)
    found = torch.autograd.grad(loss.total, learned)
    for x, y in zip(found, torch.autograd.grad(expected, exact), strict=True):
        assert_near(x, y, dtype)
