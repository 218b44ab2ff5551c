"""Saving in the background: the training step goes on while the bytes are hashed and written."""

from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any

import torch


class Saver:
    """Does one piece of work at a time in a thread; what it fails with is raised by the next call.

    A process that ends finishes the work first.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: Exception | None = None

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def start(self, work: Callable[[], object]) -> None:
        """Begin, once the work before is done."""
        self.wait()

        def run() -> None:
            try:
                work()
            except Exception as error:
                self._failure = error

        self._thread = Thread(target=run, name="saver")
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being done."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def snapshot(value: Any) -> Any:
    """A copy whose tensors are on the CPU and shared with nothing: what is saved while training goes on."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: snapshot(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(part) for part in value)
    return value
