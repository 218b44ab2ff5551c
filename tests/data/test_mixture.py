"""Several shard sets in one plan: how they share an epoch, whatever the cut, and how they are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.data import mixture as module
from imgcap.data.mixture import Interleaving, MixedReader, Share, mixture_sha256
from imgcap.data.plan import Plan
from imgcap.errors import UserError
from imgcap.shards.reader import ShardReader

OWN, OTHER = (7, 6), (5, 4)  # shards of the first set, and of one that is mixed in
counts = st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(sum).map(tuple)


def epoch_of(plan, epoch):
    """Passes and samples of an epoch, without the padding."""
    batches = [plan.global_batch_at(epoch * plan.steps_per_epoch + step) for step in range(plan.steps_per_epoch)]
    passes, samples, padding = (np.concatenate(values) for values in zip(*batches, strict=True))
    return passes[~padding].tolist(), samples[~padding].tolist()


@given(counts, counts, st.integers(1, 30), st.integers(1, 7), st.integers(0, 9))
def test_an_epoch_has_each_own_sample_once_and_the_share_of_the_others(own, other, share, global_batch, seed):
    plan = Plan(seed, list(own), global_batch, "sha", None, (Share(other, share),))
    drawn = []
    for epoch in range(3):
        _, samples = epoch_of(plan, epoch)
        assert sorted(sample for sample in samples if sample < sum(own)) == list(range(sum(own)))
        drawn += [sample - sum(own) for sample in samples if sample >= sum(own)]
        assert len(drawn) == share * (epoch + 1)
    times = np.bincount(drawn, minlength=sum(other))
    assert times.max() - times.min() <= 1, "a set goes on where the epoch before has left it"


def test_passes_count_how_often_the_set_was_seen_whole():
    plan = Plan(0, list(OWN), 5, "sha", None, (Share(OTHER, 20),))  # 20 of 9: two passes and two samples
    passes, samples = epoch_of(plan, 1)
    of_other = [number for number, sample in zip(passes, samples, strict=True) if sample >= sum(OWN)]
    assert of_other == sorted(of_other) and set(of_other) == {2, 3, 4}
    assert {number for number, sample in zip(passes, samples, strict=True) if sample < sum(OWN)} == {1}


def test_sets_are_mixed_and_each_epoch_otherwise():
    plan = Plan(3, [500], 50, "sha", None, (Share((900,), 500),))
    for step in range(2 * plan.steps_per_epoch):
        share = (plan.global_batch_at(step).indices_N >= 500).mean()
        assert 0.2 < share < 0.8
    assert epoch_of(plan, 0) != epoch_of(plan, 1)


@pytest.mark.parametrize("step", [0, 3, 7, 11])
def test_any_cut_gives_the_same_batches_and_a_new_plan_goes_on_anywhere(step):
    plan = Plan(1, list(OWN), 4, "sha", 1, (Share(OTHER, 6, 1), Share((3,), 2)))
    for earlier in range(step):
        plan.global_batch_at(earlier)
    whole = plan.global_batch_at(step)
    resumed = Plan(1, list(OWN), 4, "sha", 1, (Share(OTHER, 6, 1), Share((3,), 2)))
    pieces = [piece for rank in range(2) for piece in resumed.micro_batches(step, rank, 2, 2)]
    for name in ("passes_N", "indices_N", "padding_N"):
        assert np.array_equal(np.concatenate([getattr(piece, name) for piece in pieces]), getattr(whole, name))


def test_blocks_bound_what_each_set_reads_at_once():
    plan = Plan(0, [10] * 6, 10, "sha", 2, (Share((8,) * 5, 20, 1),))
    orders = plan.orders()
    for step in range(3 * plan.steps_per_epoch):
        batch = plan.global_batch_at(step)
        for order, position, first in zip(orders, plan.positions(step), (0, 60), strict=True):
            near = [order.epoch(number).samples(block) for number, block in order.blocks(position, 3)]
            mine = batch.indices_N[(batch.indices_N < 60) == (first == 0)] - first
            assert set(mine) <= set(np.concatenate(near))


def test_sets_are_counted_across_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 8)
    mixed = Interleaving(0, [20, 13])
    whole = mixed.between(4, 0, 33)
    for position in range(34):
        assert mixed.before(4, position).tolist() == np.bincount(whole[:position], minlength=2).tolist()


def test_the_identity_of_a_set_alone_is_its_own():
    assert mixture_sha256("a", {}) == "a"
    assert len({"a", mixture_sha256("a", {"b": 1.0}), mixture_sha256("a", {"b": 0.5}), mixture_sha256("b", {})}) == 4


def test_a_mixed_reader_counts_on_behind_each_set(shards):
    train, val = (ShardReader(shards, split) for split in ("train", "val"))
    mixed = MixedReader([train, val])
    assert len(mixed) == len(train) + len(val)
    assert mixed.read(len(train) - 1) == train.read(len(train) - 1)
    assert mixed.read(len(train)) == val.read(0) and mixed.read(len(mixed) - 1) == val.read(len(val) - 1)
    with pytest.raises(IndexError):
        mixed.read(len(mixed))


def test_blocks_of_the_other_sets_are_of_the_order():
    def plan(block):
        return Plan(1, list(OWN), 4, "sha", None, (Share(OTHER, 6, block),))

    state = plan(None).state(3)
    plan(None).check_state(state)
    with pytest.raises(UserError, match=r"another block of data\.also"):
        plan(1).check_state(state)
    del state["other_blocks"]  # as 0.1.0 wrote it
    plan(1).check_state(state)
