"""Keyed random numbers: functions of their keys alone; the coins uniform and independent of each other."""

import torch

from imgcap.data.keyed_random import coins, generator


def test_a_coin_depends_on_its_keys_and_on_nothing_else() -> None:
    ids = torch.tensor([5, 900_000_000_001, -3, 17])
    whole = coins(7, 11, ids, 5, 20)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(coins(7, 11, ids[order], 5, 20), whole[order])  # another batch
    assert torch.equal(coins(7, 11, ids[1:2], 3, 9), whole[1:2, :3, :9])  # another shape
    assert torch.equal(coins(7, torch.tensor(11), ids, 5, 20), whole)  # the step on the device


def test_coins_are_uniform() -> None:
    drawn = coins(0, 3, torch.arange(1000), 5, 40).flatten().double()
    count = len(drawn)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 4 * (1 / 12 / count) ** 0.5
    observed = torch.histc(drawn, bins=64, min=0, max=1)
    chi_square = ((observed - count / 64) ** 2 / (count / 64)).sum()
    assert 63 - 4 * (2 * 63) ** 0.5 < chi_square < 63 + 4 * (2 * 63) ** 0.5


def test_coins_of_neighbouring_keys_are_uncorrelated() -> None:
    ids = torch.arange(2000)
    base = coins(0, 0, ids, 2, 2)
    neighbours = [
        coins(1, 0, ids, 2, 2)[:, 0, 0],
        coins(0, 1, ids, 2, 2)[:, 0, 0],
        coins(0, 0, ids + 1, 2, 2)[:, 0, 0],
        coins(0, 0, ids + 2**32, 2, 2)[:, 0, 0],
        base[:, 1, 0],
        base[:, 0, 1],
        base[:, 1, 1],
    ]
    correlation = torch.corrcoef(torch.stack([base[:, 0, 0], *neighbours]))
    assert (correlation - torch.eye(len(correlation))).abs().max() < 4.5 / 2000**0.5


def test_no_two_of_a_million_coins_share_more_than_chance_makes_them() -> None:
    drawn = coins(0, 0, torch.arange(5000), 5, 40).flatten()
    expected = 2**24 * (1 - (1 - 2.0**-24) ** len(drawn))  # distinct values of so many draws out of 2^24
    assert abs(drawn.unique().numel() - expected) < 0.001 * expected


def test_a_generator_is_that_of_its_key() -> None:
    drawn = {key: generator(*key).integers(1 << 62) for key in [(1, 2), (2, 1), (1, 2, 3), (1, 3), (1, 2, 1 << 40)]}
    assert len(set(drawn.values())) == len(drawn)
    assert all(generator(*key).integers(1 << 62) == value for key, value in drawn.items())
    assert generator(7, 2, 1).permutation(5).tolist() == [1, 0, 4, 2, 3]  # as in all versions so far
