"""The loader of a whole run: workers read ahead across the ends of epochs, so there is no gap there."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from imgcap.data.batch import BatchShape, page_locked
from imgcap.data.dataset import TrainDataset
from imgcap.data.plan import Accumulation, MicroBatch, Plan
from imgcap.errors import UserError
from imgcap.ranks.memory import within_shared_memory
from imgcap.types import Batch

T = TypeVar("T")
READ_AHEAD = 4  # batches of each worker


class PlanSampler(Sampler[MicroBatch]):
    """Yields the micro-batches of a rank, from step `start` to step `stop`."""

    def __init__(self, plan: Plan, rank: int, world_size: int, accumulation: Accumulation, start: int, stop: int):
        self.plan, self.rank, self.world_size, self.accumulation = plan, rank, world_size, accumulation
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulation.steps

    def __iter__(self) -> Iterator[MicroBatch]:
        for step in range(self.start, self.stop):
            yield from self.plan.micro_batches(step, self.rank, self.world_size, self.accumulation.steps)


class BufferRing:
    """A ring of batches in shared memory that are written again and again: each worker has its own, in turn.

    A batch that has been taken stays as it is until more than `held` others have been taken after it. For a worker is
    READ_AHEAD batches ahead of those taken at most, and every `workers`-th batch is its own.
    """

    def __init__(self, shape: BatchShape, workers: int, held: int):
        self.each = 1 + (READ_AHEAD + held // workers if workers else held)
        self.batches = shape.allocate(max(workers, 1) * self.each, shared=workers > 0)
        self._written = 0  # by this process

    def next_number(self) -> int:
        """The number of the batch that the calling process, a worker or the only one, is to write next."""
        worker = get_worker_info()
        number = (worker.id if worker else 0) * self.each + self._written % self.each
        self._written += 1
        return number


class TrainLoader:
    """Batches in the order of the plan, read ahead by `workers` processes (0: in this one).

    A batch is good until two steps' more micro-batches have been taken. For a GPU its memory is locked (`pin_memory`),
    which takes effect as the first batch is taken, after the workers have been forked. `prefetch` is told each step
    that is about to be read, so that it may fetch remote shards.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        sampler: PlanSampler,
        workers: int,
        pin_memory: bool,
        prefetch: Callable[[int], object] = lambda step: None,
    ):
        self.dataset, self.sampler, self.workers, self.pin_memory = dataset, sampler, workers, pin_memory
        self.prefetch = prefetch

    def __iter__(self) -> Iterator[Batch]:
        accumulation, stop = self.sampler.accumulation, self.sampler.stop
        ring = BufferRing(self.dataset.shape(accumulation.micro_batch), self.workers, held=2 * accumulation.steps)
        loader = read_ahead(partial(_write, self.dataset, ring), self.sampler, self.workers, ahead=READ_AHEAD)
        ahead = READ_AHEAD * self.workers // accumulation.steps  # steps that the workers are
        # Workers have been forked in `reading`, so that memory may be locked and prefetching begin its threads.
        with reading(loader) as numbers, page_locked(ring.batches) if self.pin_memory else nullcontext():
            for step in range(self.sampler.start, stop):
                self.prefetch(min(step + ahead, stop - 1))
                for number in islice(numbers, accumulation.steps):
                    yield ring.batches[number]


def _write(dataset: TrainDataset, ring: BufferRing, micro_batch: MicroBatch) -> int:
    """Read a micro-batch into a batch of the ring; return the number of that batch."""
    number = ring.next_number()
    dataset.write(micro_batch, ring.batches[number])
    return number


class _MistakesAsItems(Dataset[T | UserError]):
    """A dataset of what `read` returns or refuses: raised in a worker, a mistake would arrive inside of a traceback.

    A worker moves tensors to shared memory here: where there is no room, torch would wait for ever for what its queue
    could not take.
    """

    def __init__(self, read: Callable[[Any], T]):
        self.read = read

    def __getitem__(self, key: Any) -> T | UserError:
        try:
            item = self.read(key)
            if get_worker_info():
                tensors = [leaf for leaf in tree_leaves(item) if isinstance(leaf, torch.Tensor)]
                with within_shared_memory(sum(tensor.nbytes for tensor in tensors)):
                    for tensor in tensors:
                        tensor.share_memory_()
            return item
        except UserError as mistake:
            return mistake


class _Loader(DataLoader[T | UserError]):
    """torch's loader, without its warning, at each start, of more workers than cores: they may wait for a disk."""

    def check_worker_number_rationality(self) -> None:
        """Say nothing: where workers are too few or too slow, the run says that the loader is the bottleneck."""


def read_ahead(
    read: Callable[[Any], T], keys: Iterable[Any], workers: int, pin_memory: bool = False, ahead: int = 2
) -> DataLoader[T | UserError]:
    """Make a loader for `reading` whose `workers` processes (0: this one) read a whole batch for each key, in order.

    Each worker is up to `ahead` batches ahead.
    """
    return _Loader(
        _MistakesAsItems(read),
        sampler=keys,
        batch_size=None,  # an item is a whole batch already
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=ahead if workers else None,
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

    Shutting down is left to the main process, which may still be saving: torchrun signals loader workers too.
    """
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
