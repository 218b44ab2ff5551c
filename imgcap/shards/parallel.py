"""An ordered map over processes that runs only a little ahead of its reader."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Self, TypeVar

from imgcap.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16  # items of one task: enough to hide the cost of passing them to a process
_TASKS_AHEAD = 4  # of each worker; bounds the results that wait in memory

_function: Callable[[Any], Any]  # in a worker process: what it was started for


class Workers(Generic[Item, Result]):
    """Applies one function to many items in `count` processes; with one, in this process.

    The function travels to each process once. Processes are forked, which takes no time, where the caller has no
    threads, and spawned where it has.
    """

    def __init__(self, function: Callable[[Item], Result], count: int, chunk: int = _CHUNK) -> None:
        self._own = function
        self._count = count
        self._chunk = chunk  # items that a process takes at once
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            context = multiprocessing.get_context("fork" if threading.active_count() == 1 else "spawn")
            self._pool = ProcessPoolExecutor(self._count, context, _start_worker, (self._own,))
            self._submit([])  # starts them, before the caller has any thread more
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, items: Sequence[Item]) -> Iterator[Result]:
        """Yield the results in the order of the items, whichever process made them."""
        if self._pool is None:
            yield from map(self._own, items)
            return
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for start in range(0, len(items), self._chunk):
                waiting.append(self._submit(items[start : start + self._chunk]))
                if len(waiting) > self._count * _TASKS_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended, most likely for want of memory; run again with fewer --workers, "
                "what is finished is kept"
            ) from None
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, items: Sequence[Item]) -> Future[list[Result]]:
        """Have a process apply the function. One that is started for it is born deaf to Ctrl-C, as it will stay."""
        assert self._pool is not None
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(_run_chunk, items)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _start_worker(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit once the parent was killed: it can't say so, and the queue that is waited on stays open here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run_chunk(items: Sequence[Any]) -> list[Any]:
    return [_function(item) for item in items]
