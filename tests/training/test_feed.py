"""The feed: steps of micro-batches, and on a GPU one step ahead, no buffer written before it has been copied."""

from contextlib import nullcontext

import pytest
import torch

from imgcap.training import feed as module
from imgcap.training.feed import Feed
from imgcap.types import Batch

CPU = torch.device("cpu")


def batches(count):
    for number in range(count):
        yield Batch(
            torch.full((1, 3, 2, 2), number, dtype=torch.uint8), torch.full((1, 1, 2), number), torch.tensor([0])
        )


def numbers(micro_batches):
    return [int(batch.tokens_BKT.max()) for batch in micro_batches]


def test_on_a_cpu_a_step_takes_what_the_loader_gives():
    feed = Feed(batches(5), 2, CPU)
    host, device = feed.take()
    assert host is device and numbers(host) == [0, 1]
    feed.take_ahead()
    assert numbers(feed.take().device) == [2, 3]
    with pytest.raises(StopIteration):
        feed.take()


class Events:
    """Stands in for torch.cuda where there is none: notes what is waited for, and in which order."""

    def __init__(self, monkeypatch):
        self.log = []
        events = self

        class Event:
            def __init__(self):
                self.number = None

            def record(self, stream):
                events.log.append(("record", stream, id(self)))

            def synchronize(self):
                events.log.append(("synchronize", id(self)))

        class Stream:
            def __init__(self, device=None):
                pass

            def wait_event(self, event):
                events.log.append(("wait", "side", id(event)))

            def wait_stream(self, stream):
                events.log.append(("wait for", stream))

        class Current:
            def wait_event(self, event):
                events.log.append(("wait", "current", id(event)))

        current = Current()
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        # A field's default is the class of today: both places get one of these.
        monkeypatch.setattr(module._Place, "__init__", self._place(Event))

    @staticmethod
    def _place(event):
        def begin(place):
            place.host, place.device, place.copied, place.read = [], [], event(), event()

        return begin


@pytest.fixture
def gpu_feed(monkeypatch):
    """A feed that copies as for a GPU, to this CPU."""
    events = Events(monkeypatch)

    def make(count, each):
        made = Feed(batches(count), each, torch.device("cuda", 0))
        made.device = CPU
        return made, events

    return make


def test_on_a_gpu_each_step_is_copied_while_the_one_before_computes(gpu_feed):
    feed, _ = gpu_feed(6, 2)
    taken = []
    for _ in range(3):
        host, device = feed.take()
        assert numbers(host) == numbers(device) and host[0].tokens_BKT is not device[0].tokens_BKT
        taken.append((numbers(device), device[0].tokens_BKT.data_ptr()))
        feed.take_ahead()
    assert [number for number, _ in taken] == [[0, 1], [2, 3], [4, 5]]
    assert taken[0][1] == taken[2][1] != taken[1][1]  # two places, in turns
    with pytest.raises(StopIteration):
        feed.take()


def test_a_place_is_written_again_once_it_was_copied_and_read(gpu_feed):
    feed, events = gpu_feed(6, 1)
    for _ in range(4):
        feed.take()
        feed.take_ahead()
    first, second = feed._places
    synchronised = [entry[1] for entry in events.log if entry[0] == "synchronize"]
    assert synchronised == [id(place.copied) for place in (first, second, first, second, first)]
    reads = [entry for entry in events.log if entry[-1] in (id(first.read), id(second.read))]
    order = [("side" if entry[1] == "side" else "step", entry[-1] == id(first.read)) for entry in reads]
    # Each place is filled at once the first time; then each step's reading is noted before the place is filled again.
    assert order == [
        ("side", True),
        ("step", True),
        ("side", False),
        ("step", False),
        ("side", True),
        ("step", True),
        ("side", False),
        ("step", False),
        ("side", True),
    ]
