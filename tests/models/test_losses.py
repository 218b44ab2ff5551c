"""The losses against torch's cross-entropy and a plain loop, and that they add up over any cut."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgcap.models import losses
from imgcap.models.losses import RANKS, caption_loss
from imgcap.types import EOS, PAD, SOS

B, K, T, V, P, R = 4, 3, 8, 17, 5, 6


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    tokens_BKT = torch.full((B, K, T), PAD)
    for row in range(B * K - 1):  # the last caption is missing
        words = torch.randint(4, V, (row % (T - 1),), generator=random)
        tokens_BKT.view(-1, T)[row, : len(words) + 2] = torch.tensor([SOS, *words.tolist(), EOS])
    logits_BKTV = torch.randn(B, K, T - 1, V, generator=random, dtype=dtype)
    attention_BKTP = torch.rand(B, K, T - 1, P, generator=random, dtype=dtype).softmax(-1)
    return logits_BKTV, tokens_BKT, attention_BKTP


def identity(dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A head that takes readouts for logits."""
    head = nn.Linear(V, V, dtype=dtype)
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    return head


@pytest.fixture(params=["rows with a target", "all rows"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU leaves out the rows without a target, a GPU masks them: here both ways."""
    if request.param == "all rows":
        monkeypatch.setattr(losses, "_rows", all_rows)


def all_rows(
    readout_BKTR: torch.Tensor, targets_BKT: torch.Tensor, weights_BK: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    weights_M = None if weights_BK is None else weights_BK[..., None].expand_as(targets_BKT).flatten()
    return readout_BKTR.flatten(0, 2), targets_BKT.flatten(), weights_M


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("block", "cached"), [(1 << 24, 1 << 18), (5 * V, 2 * V), (1, 1)])
def test_equals_torchs_cross_entropy_and_its_gradients(
    smoothing: float, block: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any size of a block; and the gradient of a multiple is the multiple of the gradient."""
    monkeypatch.setattr(losses, "BLOCK", block)
    monkeypatch.setattr(losses, "CACHED", cached)
    _, tokens_BKT, _ = batch()
    torch.manual_seed(1)
    readout_BKTR = torch.randn(B, K, T - 1, R, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(R, V, dtype=torch.float64)
    inputs = [readout_BKTR, head.weight, head.bias]
    loss = caption_loss(readout_BKTR, head, tokens_BKT, smoothing)
    logits_MV, targets_M = head(readout_BKTR).flatten(0, 2), tokens_BKT[..., 1:].flatten()
    expected = F.cross_entropy(logits_MV, targets_M, ignore_index=PAD, label_smoothing=smoothing, reduction="sum")
    plain = F.cross_entropy(logits_MV, targets_M, ignore_index=PAD, reduction="sum")
    torch.testing.assert_close((loss.total, loss.cross_entropy), (expected, plain.detach()))
    assert loss.tokens == (targets_M != PAD).sum()
    torch.testing.assert_close(torch.autograd.grad(3 * loss.total, inputs), torch.autograd.grad(3 * expected, inputs))
    with torch.no_grad():
        torch.testing.assert_close(caption_loss(readout_BKTR, head, tokens_BKT, smoothing).total, expected.detach())


def test_the_attention_penalty_is_the_papers_weighted_by_tokens() -> None:
    logits_BKTV, tokens_BKT, attention_BKTP = batch()
    expected = 0.0
    for b in range(B):
        for k in range(K):
            length = int((tokens_BKT[b, k, 1:] != PAD).sum())
            received = [sum(float(attention_BKTP[b, k, t, p]) for t in range(length)) for p in range(P)]
            expected += length * sum((1 - total) ** 2 for total in received) / P
    without = caption_loss(logits_BKTV, identity(), tokens_BKT, 0.1)
    with_penalty = caption_loss(logits_BKTV, identity(), tokens_BKT, 0.1, attention_BKTP, 0.7)
    assert math.isclose(with_penalty.total.detach() - without.total.detach(), 0.7 * expected, rel_tol=1e-5)
    assert with_penalty.cross_entropy == without.cross_entropy


def test_an_even_attention_costs_nothing() -> None:
    tokens_BKT = torch.randint(4, V, (B, K, P + 1))
    attention_BKTP = torch.eye(P).expand(B, K, P, P)  # step t looks at cell t alone
    logits_BKTV = torch.zeros(B, K, P, V)
    loss = caption_loss(logits_BKTV, identity(), tokens_BKT, 0.0, attention_BKTP, 1.0)
    torch.testing.assert_close(loss.total, loss.cross_entropy)


def test_sums_add_up_over_any_cut_of_the_batch() -> None:
    logits_BKTV, tokens_BKT, attention_BKTP = batch(torch.float64)
    whole = caption_loss(logits_BKTV, identity(torch.float64), tokens_BKT, 0.1, attention_BKTP, 1.0)
    for pieces in (2, 4):
        cut = [tensor.chunk(pieces) for tensor in (logits_BKTV, tokens_BKT, attention_BKTP)]
        parts = [caption_loss(l, identity(torch.float64), t, 0.1, a, 1.0) for l, t, a in zip(*cut, strict=True)]  # noqa: E741
        for total, summands in zip(whole, zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(sum(summands), total)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("cached", [1 << 18, 2 * V])
def test_captions_count_by_their_weights(smoothing: float, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each caption's loss and gradient times its weight, also a negative one or none; a word of -inf is never it."""
    monkeypatch.setattr(losses, "CACHED", cached)
    _, tokens_BKT, _ = batch()
    torch.manual_seed(1)
    readout_BKTR = torch.randn(B, K, T - 1, R, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(R, V, dtype=torch.float64)
    if not smoothing:
        head.bias.data[1] = -torch.inf
    weights_BK = torch.randn(B, K, dtype=torch.float64).index_fill(0, torch.tensor(2), 0.0)
    inputs = [readout_BKTR, head.weight, head.bias]
    loss = caption_loss(readout_BKTR, head, tokens_BKT, smoothing, weights_BK=weights_BK)
    each_BKT = F.cross_entropy(
        head(readout_BKTR).movedim(-1, 1),
        tokens_BKT[..., 1:],
        ignore_index=PAD,
        label_smoothing=smoothing,
        reduction="none",
    )
    expected = (each_BKT.sum(-1) * weights_BK).sum()
    torch.testing.assert_close(loss.total, expected)
    for found, gradient in zip(
        torch.autograd.grad(loss.total, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(found, gradient)
    assert loss.cross_entropy == caption_loss(readout_BKTR, head, tokens_BKT, 0.0).cross_entropy


@pytest.mark.usefixtures("rows")
def test_padding_has_no_say() -> None:
    logits_BKTV, tokens_BKT, attention_BKTP = batch()
    pad_BKT1 = (tokens_BKT[..., 1:] == PAD).unsqueeze(-1)
    before = caption_loss(logits_BKTV, identity(), tokens_BKT, 0.1, attention_BKTP, 1.0)
    noisy = logits_BKTV + 1e4 * pad_BKT1 * torch.randn_like(logits_BKTV)
    after = caption_loss(noisy, identity(), tokens_BKT, 0.1, attention_BKTP + 9.0 * pad_BKT1, 1.0)
    torch.testing.assert_close(tuple(after), tuple(before))


@pytest.mark.usefixtures("rows")
def test_a_batch_of_nothing_but_padding_is_zero_and_has_a_finite_gradient() -> None:
    logits_BKTV, _, attention_BKTP = batch()
    logits_BKTV.requires_grad_()
    loss = caption_loss(logits_BKTV, identity(), torch.full((B, K, T), PAD), 0.1, attention_BKTP, 1.0)
    assert loss.total == 0 and loss.cross_entropy == 0 and loss.tokens == 0
    loss.total.backward()
    assert (logits_BKTV.grad == 0).all()


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits_BKTV, tokens_BKT, _ = batch()
    half = logits_BKTV.bfloat16()
    loss = caption_loss(half, identity(), tokens_BKT, 0.1)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, caption_loss(half.float(), identity(), tokens_BKT, 0.1).total)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("learns", [True, False])
def test_accuracy_counts_as_a_sort_does(learns: bool) -> None:
    logits_BKTV, tokens_BKT, _ = batch()
    logits_BKTV = (logits_BKTV * 2).round().requires_grad_(learns)  # many ties
    targets_BKT = tokens_BKT[..., 1:]
    order_BKTV = logits_BKTV.sort(dim=-1, descending=True, stable=True).indices
    hit_BKTV = (order_BKTV == targets_BKT.unsqueeze(-1)) & (targets_BKT != PAD).unsqueeze(-1)
    expected = torch.stack([hit_BKTV[..., :rank].sum() for rank in RANKS])
    assert 0 < expected[0] < expected[1]
    assert torch.equal(caption_loss(logits_BKTV, identity(), tokens_BKT, 0.1, count_correct=True).correct, expected)
    assert not caption_loss(logits_BKTV, identity(), tokens_BKT, 0.1).correct.any()
