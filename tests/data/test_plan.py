"""The order of samples: a permutation each epoch, the same for every way of cutting it."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.data import plan as module
from imgcap.data.order import EpochOrder
from imgcap.data.plan import Plan, split_batch
from imgcap.errors import UserError

shard_counts = st.lists(st.integers(0, 9), min_size=1, max_size=7)


ORDER_OF_VERSION_1 = [2, 9, 1, 5, 0, 4, 7, 3, 10, 8, 6, 11]  # seed 7, epoch 2, shards of 3, 4 and 5 samples


def order(seed, epoch, counts, block=None):
    epoch = EpochOrder((seed, epoch), counts, block)
    return epoch.between(0, len(epoch))


@given(st.integers(0, 2**31 - 1), st.integers(0, 50), shard_counts, st.one_of(st.none(), st.integers(1, 8)))
def test_every_epoch_is_a_permutation(seed, epoch, counts, block):
    assert sorted(order(seed, epoch, counts, block)) == list(range(sum(counts)))


def test_epochs_and_seeds_differ_and_repeat():
    counts = [40, 40, 20]
    orders = {(seed, epoch): tuple(order(seed, epoch, counts)) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert tuple(order(2, 1, counts)) == orders[2, 1]


def test_a_block_keeps_its_shards_together():
    counts = [10] * 6
    shards = order(5, 0, counts, block=2) // 10
    for first in range(0, 60, 20):
        assert len(set(shards[first : first + 20])) == 2


@given(shard_counts, st.one_of(st.none(), st.integers(1, 8)), st.data())
def test_any_part_of_the_order_is_that_of_the_whole(counts, block, data):
    whole = order(3, 1, counts, block)
    places = st.integers(0, len(whole))
    epoch = EpochOrder((3, 1), counts, block)
    for _ in range(4):
        start, stop = sorted((data.draw(places), data.draw(places)))
        assert np.array_equal(epoch.between(start, stop), whole[start:stop])


def test_the_order_is_the_one_of_all_versions_so_far():
    assert order(7, 2, [3, 4, 5]).tolist() == ORDER_OF_VERSION_1


def test_the_worked_example_is_what_happens():
    assert doctest.testmod(module).attempted > 5
    assert not doctest.testmod(module).failed


def test_padding_repeats_the_last_batch_alone():
    plan = Plan(0, [4] * 5, 6, "sha", block=2)
    last = plan.global_batch_at(plan.steps_per_epoch - 1)
    assert last.padding_N.tolist() == [False] * 2 + [True] * 4
    assert set(last.indices_N[2:]) == set(last.indices_N[:2])


@pytest.mark.parametrize("samples", [24, 25, 31])
def test_any_cut_gives_the_same_global_batches(samples):
    plan = Plan(7, [samples], 8, "sha")
    for step in range(3 * plan.steps_per_epoch):
        whole = plan.global_batch_at(step)
        for world_size, accumulation in ((1, 1), (1, 4), (2, 1), (2, 2), (4, 2)):
            pieces = [
                piece
                for rank in range(world_size)
                for piece in plan.micro_batches(step, rank, world_size, accumulation)
            ]
            assert np.array_equal(np.concatenate([p.indices_N for p in pieces]), whole.indices_N)
            assert np.array_equal(np.concatenate([p.padding_N for p in pieces]), whole.padding_N)


@given(st.integers(1, 60), st.integers(1, 16))
def test_each_image_counts_exactly_once_an_epoch(samples, global_batch):
    plan = Plan(1, [samples], global_batch, "sha")
    seen = []
    for step in range(plan.steps_per_epoch, 2 * plan.steps_per_epoch):
        batch = plan.global_batch_at(step)
        assert set(batch.passes_N) == {1} and len(batch.indices_N) == global_batch
        seen += list(batch.indices_N[~batch.padding_N])
    assert sorted(seen) == list(range(samples))


def test_a_checkpoint_of_another_order_is_refused_by_name():
    plan = Plan(1, [10], 4, "sha")
    plan.check_state(plan.state(5))
    for other, name in (
        (Plan(2, [10], 4, "sha"), "seed"),
        (Plan(1, [10], 5, "sha"), "global_batch"),
        (Plan(1, [10], 4, "x"), "manifest"),
    ):
        with pytest.raises(UserError, match=name):
            other.check_state(plan.state(5))


@pytest.mark.parametrize(
    "world_size, micro_batch, cut", [(1, None, (32, 1)), (4, None, (8, 1)), (4, 4, (4, 2)), (2, 64, (16, 1))]
)
def test_batches_are_cut_over_ranks_then_accumulation(world_size, micro_batch, cut):
    found = split_batch(32, micro_batch, world_size)
    assert (found.micro_batch, found.steps) == cut


@pytest.mark.parametrize("micro_batch, world_size, nearest", [(None, 3, "33"), (5, 2, "4"), (None, 50, "50")])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does(micro_batch, world_size, nearest):
    with pytest.raises(UserError, match=nearest):
        split_batch(32, micro_batch, world_size)
