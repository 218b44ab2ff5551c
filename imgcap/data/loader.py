"""One loader for the whole run: workers read ahead across the ends of epochs, so there is no gap there."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from imgcap.data.batch import Collate
from imgcap.data.dataset import Ticket, TrainDataset
from imgcap.data.plan import Accumulation, Plan

READ_AHEAD = 4  # batches of each worker


class PlanSampler(Sampler[list[Ticket]]):
    """The micro-batches of one rank, from step `start` to step `stop`."""

    def __init__(self, plan: Plan, rank: int, world_size: int, cut: Accumulation, start: int, stop: int):
        self.plan, self.rank, self.world_size, self.cut = plan, rank, world_size, cut
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * self.cut.steps

    def __iter__(self) -> Iterator[list[Ticket]]:
        for step in range(self.start, self.stop):
            for epoch, indices, weight in self.plan.micro_batches(step, self.rank, self.world_size, self.cut.steps):
                yield [Ticket(epoch, int(index), float(w)) for index, w in zip(indices, weight, strict=True)]


def train_loader(dataset: TrainDataset, sampler: PlanSampler, workers: int, pin_memory: bool) -> DataLoader[Any]:
    """Batches in the order of the plan, read ahead by `workers` processes (0: in this one).

    With workers, a batch's images are good until two steps' more micro-batches have been taken.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(READ_AHEAD + 2 * sampler.cut.steps + 1),
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        prefetch_factor=READ_AHEAD if workers else None,
    )


@contextmanager
def reading(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """Iterate over a loader, and end its workers also when the reader raises.

    They ignore SIGTERM, with which Python would end them at exit: it would wait for them for ever.
    """
    batches = iter(loader)
    try:
        yield batches
    finally:
        shut_down = getattr(batches, "_shutdown_workers", None)  # only an iterator with workers has it
        if shut_down:
            shut_down()


def ignore_signals(worker: int) -> None:
    """Leave shutting down to the main process, which may still be saving; Pillow needs one thread only.

    torchrun sends SIGTERM to the whole process group, loader workers among them.
    """
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
