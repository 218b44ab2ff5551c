"""Saving in the background: the training step goes on while the bytes are hashed and written."""

import os
import sys
from collections.abc import Callable, Mapping
from itertools import zip_longest
from threading import Thread, get_native_id
from typing import Any

import torch

LEAST_NICE = 19


class Saver:
    """Does one piece of work at a time in a thread; what it fails with is raised by the next call.

    The thread takes what time the training step leaves of the cores. A process that ends finishes the work first.
    `copy` keeps the memory of the last copy for the next: a page that is new costs more than its bytes.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: Exception | None = None
        self._copied: Any = None

    @property
    def failed(self) -> bool:
        """Whether the work failed with what the next call will raise."""
        return self._failure is not None

    def copy(self, value: Any) -> Any:
        """Copy what is saved while training goes on, once the work before is done; good until the next call."""
        self.wait()
        self._copied = snapshot(value, self._copied)
        return self._copied

    def start(self, work: Callable[[], object]) -> None:
        """Begin a piece of work in the thread, once the one before is done."""
        self.wait()

        def run() -> None:
            try:
                _give_way()
                work()
            except Exception as error:
                self._failure = error

        self._thread = Thread(target=run, name="saver")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being done; raise what the work failed with."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def _give_way() -> None:
    """Lower the priority of this thread; elsewhere than on Linux that would be the whole process's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, get_native_id(), LEAST_NICE)


def snapshot(value: Any, earlier: Any = None) -> Any:
    """Copy a state, its tensors to the CPU and shared with nothing, so that training may go on while it is saved.

    The memory of an `earlier` copy, whose content is lost, is taken over where shapes agree.
    """
    if isinstance(value, torch.Tensor):
        if isinstance(earlier, torch.Tensor) and _alike(value, earlier):
            return earlier.copy_(value.detach())
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        before = earlier if isinstance(earlier, Mapping) else {}
        return {name: snapshot(part, before.get(name)) for name, part in value.items()}
    if isinstance(value, list | tuple):
        parts = earlier if isinstance(earlier, list | tuple) else ()
        return type(value)(snapshot(part, other) for part, other in zip_longest(value, parts[: len(value)]))
    return value


def _alike(value: torch.Tensor, other: torch.Tensor) -> bool:
    return (value.shape, value.dtype, value.stride()) == (other.shape, other.dtype, other.stride())
