"""Graphs, as far as a CPU has them: results in one place, static tensors that take over values."""

import pytest
import torch

from imgcap.models.kernels.graphs import Graph, Static
from imgcap.types import Batch

CPU = torch.device("cpu")


def test_a_result_lies_where_the_first_one_was():
    x = Static(torch.zeros(3))
    graph = Graph(lambda: (x.value + 1, 7), CPU)
    first, _ = graph()
    x.put(torch.full((3,), 4.0))
    second, number = graph()
    assert second is first and first.tolist() == [5.0] * 3 and number == 7


def test_static_tensors_keep_their_place_and_layout():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    batch = Batch(images, torch.ones(2, 1, 5, dtype=torch.int64), torch.arange(2))
    static = Static(batch)
    pointers = [tensor.data_ptr() for tensor in static.value]
    put = static.put(Batch(images + 1, batch.tokens_BKT * 2, batch.image_ids + 5))
    assert isinstance(put, Batch) and [tensor.data_ptr() for tensor in put] == pointers
    assert put.images_BCHW.stride() == images.stride() and torch.equal(put.images_BCHW, images + 1)
    assert put.image_ids.tolist() == [5, 6]


def test_only_tensors_may_change():
    static = Static((torch.zeros(2), True))
    with pytest.raises(AssertionError, match="only tensors change"):
        static.put((torch.zeros(2), False))
    with pytest.raises(AssertionError, match="one shape"):
        static.put((torch.zeros(2), False, 1))
