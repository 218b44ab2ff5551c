"""The largest of long rows, looked for in pieces as on a GPU."""

import pytest
import torch

from imgcap.decoding import frontier


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch):
    monkeypatch.setattr(frontier, "PIECEWISE", frozenset({"cpu", "cuda"}))
    monkeypatch.setattr(frontier, "MANY", 4)


@pytest.mark.parametrize("count", [1, 5, 20])
@pytest.mark.parametrize("length", [600, 128 * 20, 128 * 40 + 1, 35_000])
def test_the_largest_in_pieces_are_those_of_topk(length, count):
    random = torch.Generator().manual_seed(length + count)
    rows_RX = torch.randn(3, 2, length, generator=random)
    rows_RX[0, 0, torch.randperm(length, generator=random)[count + 3 :]] = -torch.inf
    found, index = frontier._topk(rows_RX, count)
    expected = rows_RX.topk(count, dim=-1)
    assert torch.equal(found, expected.values) and torch.equal(index, expected.indices)


def test_where_too_few_are_finite_the_rest_is_inside_too():
    rows_RX = torch.full((1, 128 * 8 + 3), -torch.inf)
    rows_RX[0, -1] = 1.0
    found, index = frontier._topk(rows_RX, 5)
    assert found[0].tolist() == [1.0, *[-torch.inf] * 4] and index[0, 0] == 128 * 8 + 2
    assert int(index.min()) >= 0 and int(index.max()) < rows_RX.shape[1]
