"""The micro-batches of each step, on the device by the time they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch

from imgcap.types import Batch


class Fed(NamedTuple):
    """The micro-batches of a step, as the loader wrote them and on the device; good until the next ones are taken."""

    host: list[Batch]
    device: list[Batch]


class Feed:
    """The loader's batches, `each` a step. On a GPU those of the next step are copied while it computes.

    There are two places on the GPU. Before a batch is copied into one, the copy of two steps ago has been made, so that
    the loader may write over what it came from, and the step that read it has been launched before.
    """

    def __init__(self, batches: Iterator[Batch], each: int, device: torch.device):
        self.batches, self.each, self.device = batches, each, device
        self._places: list[_Place] = []
        self._stream: torch.cuda.Stream | None = None
        self._copied: list[_Place] = []  # at most one, which the next step takes
        self._taken: _Place | None = None
        if device.type == "cuda":
            self._places = [_Place(), _Place()]
            self._stream = torch.cuda.Stream(device)

    def take(self) -> Fed:
        """Take the micro-batches of a step; raises `StopIteration` where there are no more."""
        if self._stream is None:
            host = self._next()
            return Fed(host, host)
        if not self._copied:
            self.take_ahead()
        if not self._copied:
            raise StopIteration
        self._taken = self._copied.pop()
        torch.cuda.current_stream(self.device).wait_event(self._taken.copied)
        return Fed(self._taken.host, self._taken.device)

    def take_ahead(self) -> None:
        """Begin to copy what the next step takes, once the work of this one has been launched."""
        if self._stream is None:
            return
        if self._taken is not None:
            self._taken.read.record(torch.cuda.current_stream(self.device))
        place = self._places[0] if self._taken is not self._places[0] else self._places[1]
        place.copied.synchronize()
        try:
            host = self._next()
        except StopIteration:
            return
        place.fill(host, self.device, self._stream)
        self._copied.append(place)

    def _next(self) -> list[Batch]:
        host = list(islice(self.batches, self.each))
        if len(host) < self.each:
            raise StopIteration
        return host


@dataclass
class _Place:
    """Micro-batches on the GPU, and the events of their being copied and of their having been read."""

    host: list[Batch] = field(default_factory=list)
    device: list[Batch] = field(default_factory=list)
    copied: torch.cuda.Event = field(default_factory=torch.cuda.Event)
    read: torch.cuda.Event = field(default_factory=torch.cuda.Event)

    def fill(self, host: list[Batch], device: torch.device, stream: torch.cuda.Stream) -> None:
        if not self.device:  # layouts are kept: a copy between equal ones is one transfer
            stream.wait_stream(torch.cuda.current_stream(device))  # which may still read what this memory was before
            self.device = [Batch(*(torch.empty_like(tensor, device=device) for tensor in batch)) for batch in host]
        self.host = host
        stream.wait_event(self.read)
        with torch.cuda.stream(stream):
            for kept, batch in zip(self.device, host, strict=True):
                for target, source in zip(kept, batch, strict=True):
                    target.copy_(source, non_blocking=True)
            self.copied.record(stream)
