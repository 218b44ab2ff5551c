"""The LSTM cell by kernels against autograd in float64: summands that are columns, dropout, two gradients arriving."""

import pytest
import torch
from precise import assert_near

from imgcap.models.kernels.gpu.cell import Dropped, NewState, lstm_cell, lstm_cell_backward
from imgcap.models.kernels.gpu.recurrent import recurrence


def formula(gates_NG, cell_NH):
    entry, forget, candidate, output = gates_NG.chunk(4, dim=-1)
    new_cell_NH = forget.sigmoid() * cell_NH + entry.sigmoid() * candidate.tanh()
    return output.sigmoid() * new_cell_NH.tanh(), new_cell_NH


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("summands", [2, 3])
@pytest.mark.parametrize(("rows", "width"), [(1, 40), (3, 5), (2, 600)])
def test_equals_autograd(rows, width, summands, dtype, device):
    torch.manual_seed(0)
    wide = torch.randn(summands, rows, 4 * width + 7, device=device).to(dtype)
    columns = [wide_NQ[:, 3 : 3 + 4 * width] for wide_NQ in wide]
    cell_NH, arrived_NH, also_NH = (torch.randn(rows, width, device=device) for _ in range(3))
    d_cell_NH, kept_NH = torch.randn(rows, width, device=device), 2.0 * (torch.rand(rows, width, device=device) < 0.5)
    new = NewState(
        torch.empty_like(arrived_NH, dtype=dtype), torch.empty_like(cell_NH), torch.empty_like(wide[0, :, 7:])
    )
    new = new._replace(gates_NG=new.gates_NG.contiguous())
    dropped = Dropped(kept_NH, torch.empty_like(new.hidden_NH))
    lstm_cell(columns, cell_NH, new, dropped)
    gates_NG = sum(x.double() for x in columns).requires_grad_()
    before_NH = cell_NH.double().requires_grad_()
    hidden_NH, after_NH = formula(gates_NG, before_NH)
    for found, expected in (
        (new.hidden_NH, hidden_NH),
        (new.cell_NH, after_NH),
        (dropped.read_NH, hidden_NH * kept_NH),
    ):
        assert_near(found, expected, dtype)

    arrived_NH, also_NH = arrived_NH.to(dtype), also_NH.to(dtype)
    total = (hidden_NH * (arrived_NH.double() + also_NH.double() * kept_NH)).sum() + (after_NH * d_cell_NH).sum()
    expected = torch.autograd.grad(total, [gates_NG, before_NH])
    d_wide = torch.full_like(wide[0], 7.0)
    lstm_cell_backward(new, cell_NH, arrived_NH, also_NH, d_cell_NH, d_wide[:, 3 : 3 + 4 * width], kept_NH)
    assert_near(d_wide[:, 3 : 3 + 4 * width], expected[0], dtype)
    assert_near(d_cell_NH, expected[1], dtype)
    assert (d_wide[:, :3] == 7).all() and (d_wide[:, 3 + 4 * width :] == 7).all(), "nothing is written beside"


@pytest.mark.parametrize("steps", [1, 4])
def test_a_recurrence_is_torchs_lstm(steps, device):
    torch.manual_seed(0)
    rows, width = 3, 40
    reference = torch.nn.LSTM(width, width, device=device, dtype=torch.float64)
    x_TND, first = torch.randn(steps, rows, width, device=device), torch.randn(2, 1, rows, width, device=device)
    w_ih, w_hh, b_ih, b_hh = (parameter.detach().float().requires_grad_() for parameter in reference.parameters())
    inputs = [x_TND.requires_grad_(), *(state.requires_grad_() for state in first.clone().detach().unbind())]
    found_TNH = recurrence(x_TND @ w_ih.t() + b_ih, inputs[1][0], inputs[2][0], w_hh, b_hh)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected_TNH, _ = reference(exact[0], (exact[1], exact[2]))
    assert_near(found_TNH, expected_TNH, torch.float32)
    weight_TNH = torch.randn_like(found_TNH)
    d_found = torch.autograd.grad((found_TNH * weight_TNH).sum(), [*inputs, w_ih, w_hh, b_ih, b_hh])
    d_expected = torch.autograd.grad((expected_TNH * weight_TNH).sum(), [*exact, *reference.parameters()])
    for x, y in zip(d_found, d_expected, strict=True):
        assert_near(x, y, torch.float32)
