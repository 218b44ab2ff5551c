"""The collectives that the rest of imgcap uses, none of which needs a test of rank before it."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as distributed

from imgcap.errors import UserError
from imgcap.ranks.watchdog import waiting

T = TypeVar("T")
TRIED = 8_000_000  # numbers; enough that latency doesn't count


def sum_across_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place, and return it."""
    return begin_sum_across_ranks(tensor)()


def begin_sum_across_ranks(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to sum a tensor over all ranks, in place; call what this returns to wait for the end and get the tensor."""
    begun = distributed.all_reduce(tensor, async_op=True) if distributed.is_initialized() else None

    def wait() -> torch.Tensor:
        if begun is not None:
            with waiting("all-reduce of sums"):
                begun.wait()
        return tensor

    return wait


def exchange_seconds(numbers: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure, with some of them, how many seconds the ranks take to sum so many numbers; the same on all ranks."""
    tried = torch.zeros(max(min(numbers, TRIED), 1), dtype=dtype, device=device)
    sum_across_ranks(torch.zeros(1, device=device)).item()  # they begin together
    started = time.perf_counter()
    sum_across_ranks(tried)[0].item()
    return broadcast_object((time.perf_counter() - started) * numbers / len(tried))


def gather_objects(value: T) -> list[T] | None:
    """Collect one picklable object from each rank on rank 0, in the order of ranks; None elsewhere."""
    if not distributed.is_initialized():
        return [value]
    gathered: list[Any] | None = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    with waiting("gather of objects"):
        distributed.gather_object(value, gathered)
    return gathered


def broadcast_object(value: T) -> T:
    """Return rank 0's object on every rank."""
    if not distributed.is_initialized():
        return value
    box = [value]
    with waiting("broadcast from rank 0"):
        distributed.broadcast_object_list(box)
    return box[0]


def on_main(work: Callable[[], object]) -> None:
    """Do the work on rank 0 while the others wait; what it raises is raised on every rank."""
    failure: Exception | None = None
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        try:
            work()
        except Exception as error:
            failure = error
    told = broadcast_object(None if failure is None else (isinstance(failure, UserError), str(failure)))
    if failure is not None:
        raise failure
    if told is not None:
        was_mistake, message = told
        raise (UserError if was_mistake else RuntimeError)(message)


def from_main(work: Callable[[], T]) -> T:
    """Do the work on rank 0 and return its result, a picklable object, on every rank; errors are raised there too."""
    box: list[T] = []
    on_main(lambda: box.append(work()))
    result: Any = broadcast_object(box[0] if box else None)
    return result


class SharedCounter:
    """A counter, by its name, that every rank adds to without waiting for another. It begins at 0."""

    def __init__(self, name: str):
        self._name, self._alone = f"imgcap/counter/{name}", 0

    def add(self, amount: int) -> int:
        """Add to the counter and return its new value: no two calls that add 1 return the same."""
        if not distributed.is_initialized():
            self._alone += amount
            return self._alone
        return int(distributed.distributed_c10d._get_default_store().add(self._name, amount))
