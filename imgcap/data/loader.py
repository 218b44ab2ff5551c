"""One loader for the whole run: workers read ahead across the ends of epochs, so there is no gap there."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from imgcap.data.dataset import TrainDataset
from imgcap.data.plan import Accumulation, MicroBatch, Plan
from imgcap.errors import UserError
from imgcap.types import Batch

T = TypeVar("T")
READ_AHEAD = 4  # batches of each worker


class PlanSampler(Sampler[MicroBatch]):
    """The micro-batches of one rank, from step `start` to step `stop`."""

    def __init__(
        self,
        plan: Plan,
        rank: int,
        world_size: int,
        cut: Accumulation,
        start: int,
        stop: int,
        reached: Callable[[int], object] = lambda step: None,
    ):
        """`reached` is told each step whose micro-batches are about to be read."""
        self.plan, self.rank, self.world_size, self.cut = plan, rank, world_size, cut
        self.start, self.stop, self.reached = start, stop, reached

    def __len__(self) -> int:
        return (self.stop - self.start) * self.cut.steps

    def __iter__(self) -> Iterator[MicroBatch]:
        for step in range(self.start, self.stop):
            self.reached(step)
            yield from self.plan.micro_batches(step, self.rank, self.world_size, self.cut.steps)


class TrainLoader:
    """Batches in the order of the plan, read ahead by `workers` processes (0: in this one).

    Each worker writes into buffers of its own in shared memory, in turn, and sends the number of the one that is
    ready. With workers, a batch is good until two steps' more micro-batches have been taken.
    """

    def __init__(self, dataset: TrainDataset, sampler: PlanSampler, workers: int, pin_memory: bool):
        self.dataset, self.sampler, self.workers, self.pin_memory = dataset, sampler, workers, pin_memory

    def __iter__(self) -> Iterator[Batch]:
        shape = self.dataset.shape(self.sampler.cut.micro_batch)
        if not self.workers:
            for micro_batch in self.sampler:
                (batch,) = shape.allocate(1)
                self.dataset.write(micro_batch, batch)
                yield self._pinned(batch)
            return
        buffers = shape.allocate(self.workers * self._buffers_each, shared=True)
        write = _Buffered(self.dataset, buffers, self._buffers_each).write
        with reading(read_ahead(write, self.sampler, self.workers, ahead=READ_AHEAD)) as numbers:
            for number in numbers:
                yield self._pinned(buffers[number])

    @property
    def _buffers_each(self) -> int:
        """More than the batches that a worker is ahead, and those of two steps."""
        return READ_AHEAD + 2 * self.sampler.cut.steps + 1

    def _pinned(self, batch: Batch) -> Batch:
        return Batch(*(tensor.pin_memory() for tensor in batch)) if self.pin_memory else batch


class _Buffered:
    """In a worker: writes micro-batches into its own `each` of the buffers."""

    def __init__(self, dataset: TrainDataset, buffers: list[Batch], each: int):
        self.dataset, self.buffers, self.each = dataset, buffers, each
        self.written = 0

    def write(self, micro_batch: MicroBatch) -> int:
        """Returns the number of the buffer that holds it now."""
        worker = get_worker_info()
        assert worker is not None, "without workers a loader needs no buffers"
        number = worker.id * self.each + self.written % self.each
        self.written += 1
        self.dataset.write(micro_batch, self.buffers[number])
        return number


class _MistakesAsItems(Dataset[T | UserError]):
    """What a function reads. A mistake is an item too: raised in a worker, it would arrive with a traceback in it."""

    def __init__(self, read: Callable[[Any], T]):
        self.read = read

    def __getitem__(self, key: Any) -> T | UserError:
        try:
            return self.read(key)
        except UserError as mistake:
            return mistake


def read_ahead(
    read: Callable[[Any], T], keys: Iterable[Any], workers: int, pin_memory: bool = False, ahead: int | None = None
) -> DataLoader[T | UserError]:
    """A loader, for `reading`, whose `workers` processes (0: this one) read a whole batch for each key, in order.

    Each is up to `ahead` batches ahead (none: 2).
    """
    return DataLoader(
        _MistakesAsItems(read),
        sampler=keys,
        batch_size=None,  # an item is a whole batch already
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=ahead,
        worker_init_fn=prepare_worker,
    )


@contextmanager
def reading(loader: Iterable[T | UserError]) -> Iterator[Iterator[T]]:
    """Iterate over a loader, raise the mistakes that its workers met, and end them also when the reader raises.

    They ignore SIGTERM, with which Python would end them at exit: it would wait for them for ever.
    """
    batches = iter(loader)
    try:
        yield map(_sound, batches)
    finally:
        # DataLoader's iterator has the one where it has workers, TrainLoader's the other.
        end = getattr(batches, "_shutdown_workers", None) or getattr(batches, "close", None)
        if end:
            end()


def _sound(item: T | UserError) -> T:
    if isinstance(item, UserError):
        raise item
    return item


def prepare_worker(worker: int) -> None:
    """Make a loader's process ignore signals and compute with one thread.

    Shutting down is left to the main process, which may still be saving: torchrun sends SIGTERM to the whole
    process group, loader workers among them.
    """
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
