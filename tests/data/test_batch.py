"""The batch hash tells batches apart, adds up over ranks, and is not NumPy's or torch's to change."""

import numpy as np
import torch

from imgcap.data.batch import HASH_MODULUS, NO_IMAGE, PADDING, batch_hash, counts, damaged_count, target_count
from imgcap.shards.source import as_image_id
from imgcap.types import EOS, PAD, SOS, Batch

MASK = 2**64 - 1


def batch(ids):
    count = len(ids)
    tokens = torch.tensor([[[SOS, 7, EOS, PAD]]]).repeat(count, 1, 1)
    return Batch(torch.zeros(count, 3, 2, 2, dtype=torch.uint8), tokens, torch.tensor(ids))


def splitmix64(value):
    """The published finaliser, in Python's own integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_it_is_a_sum_of_splitmix64():
    ids = [3, 2**52 + 1, 0, 17]
    for epoch in (0, 5):
        assert batch_hash(batch(ids), epoch) == sum(splitmix64(i ^ splitmix64(epoch)) for i in ids) % HASH_MODULUS


def test_shares_of_a_batch_add_up_in_any_order():
    whole = batch_hash(batch([5, 6, 7, 8]), 2)
    assert (batch_hash(batch([8, 6]), 2) + batch_hash(batch([7, 5]), 2)) % HASH_MODULUS == whole


def test_padding_leaves_no_trace_and_every_image_and_epoch_does():
    assert batch_hash(batch([5, 6, PADDING, NO_IMAGE]), 2) == batch_hash(batch([5, 6]), 2)
    assert len({batch_hash(batch([5, other]), epoch) for other in range(50) for epoch in range(20)}) == 1000


def test_targets_are_all_tokens_but_sos_and_pad():
    assert target_count(batch([1, 2, 3])) == 6


def test_an_image_of_any_id_counts():
    ids = [-1, -2, -7, 5, as_image_id(-(2**63) + 2), as_image_id(2**63 - 2)]
    assert counts(np.array(ids)).all() and damaged_count(batch(ids)) == 0
    assert as_image_id(NO_IMAGE) is as_image_id(PADDING) is None
