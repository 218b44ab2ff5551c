"""Graphs, as far as a CPU has them: results in one place, static tensors that take over values, what fails."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from imgcap.models.kernels import graphs
from imgcap.models.kernels.graphs import WARM, Graph, NotCaptured, Static
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


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as `Graph` sees it: a capture runs the function once, where real ones only note it; replays are counted."""
    log = []

    class Captured:
        def replay(self):
            log.append("replay")

    @contextmanager
    def capture(graph, handle, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        log.append("capture")
        try:
            yield
        except RuntimeError:
            raise RuntimeError("the capture ended with an error before") from None

    monkeypatch.setattr(graphs, "_failed", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Captured)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream of before")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: log.append(f"back to {stream}"))
    pool = SimpleNamespace(handle=0, stream="its own", on_stream=lambda: nullcontext())

    def make(function):
        return Graph(function, torch.device("cuda", 0), pool)

    return make, log


def test_a_function_is_called_then_captured_then_replayed(gpu):
    make, log = gpu
    called = []
    graph = make(lambda: called.append(1))  # returns None: what it computes it leaves in place
    for _ in range(WARM + 3):
        assert graph() is None
    assert len(called) == WARM + 1 and log == ["capture", "replay", "replay", "replay"]


def test_what_a_graph_returns_stays_where_it_was_captured(gpu):
    make, _ = gpu
    graph = make(lambda: torch.ones(2))
    results = [graph() for _ in range(WARM + 2)]
    assert results[-1] is results[-2] and results[0] is not results[-1]


def test_a_capture_that_fails_says_why_and_is_the_last_that_is_tried(gpu):
    make, log = gpu
    tries = []

    def reads_on_the_host():
        tries.append(1)
        if len(tries) > WARM:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    graph = make(reads_on_the_host)
    graph(), graph()
    with pytest.raises(NotCaptured, match=r"^operation not permitted when stream is capturing$"):
        graph()
    assert log == ["capture", "back to the stream of before"]
    other = make(lambda: 5)
    assert other() == other() == 5
    with pytest.raises(NotCaptured, match="operation not permitted"):
        other()
    assert log.count("capture") == 1
