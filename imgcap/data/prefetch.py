"""The shards of a remote set, fetched ahead of the steps that read them."""

from threading import Condition, Thread

import numpy as np

from imgcap.data.order import EpochOrder
from imgcap.data.plan import Plan
from imgcap.errors import UserError
from imgcap.shards import ShardReader

AHEAD = 2  # blocks: the one that is being read, and the next


def block_of_cache(reader: ShardReader) -> int | None:
    """How many shards to mix so that the cache holds `AHEAD` blocks; None where it holds all, or nothing is fetched."""
    if not reader.is_remote:
        return None
    sizes = [shard.bytes + (shard.captions.bytes if shard.captions else 0) for shard in reader.shards]
    fit = reader.place.cache.bound // AHEAD // max(sizes)
    return None if sum(sizes) <= reader.place.cache.bound else max(int(fit), 1)


class Prefetcher:
    """Fetches the shards of the block that a step reads, and then those of the block behind it, in a thread.

    Ranks of one machine begin at different shards, so that each fetches another; the cache's locks see to the rest.
    What can't be fetched is left to whoever reads it, who raises.
    """

    def __init__(self, reader: ShardReader, plan: Plan, rank: int):
        self.reader, self.plan, self.rank = reader, plan, rank
        self._step = -1
        self._orders: dict[int, EpochOrder] = {}
        self._moved = Condition()
        self._thread: Thread | None = None
        self._fetched: set[tuple[int, int]] = set()  # epoch and number of a block

    def reached(self, step: int) -> None:
        """A step's samples are about to be read. The first call begins: the loader's workers have been forked."""
        with self._moved:
            self._step = step
            self._moved.notify()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="prefetcher", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                for epoch, number in self._wanted(self._step):
                    self._fetch(epoch, number)
                with self._moved:
                    step = self._step
                    self._moved.wait_for(lambda step=step: self._step != step)  # type: ignore[misc]
        except UserError:
            return

    def _fetch(self, epoch: int, number: int) -> None:
        if (epoch, number) in self._fetched:
            return
        for shard in np.roll(self._order(epoch).blocks[number], -self.rank):
            self.reader.fetch(int(shard))
        self._fetched.add((epoch, number))

    def _wanted(self, step: int) -> list[tuple[int, int]]:
        """The block that a step begins in, and those behind it, across the end of an epoch."""
        epoch, position = divmod(step, self.plan.steps_per_epoch)
        order = self._order(epoch)
        number = order.block_at(position * self.plan.global_batch)
        wanted = [(epoch, block) for block in range(number, min(number + AHEAD, len(order.blocks)))]
        behind = min(AHEAD - len(wanted), len(order.blocks))
        return wanted + [(epoch + 1, block) for block in range(behind)]

    def _order(self, epoch: int) -> EpochOrder:
        """Of this thread alone; an epoch that is near stays."""
        if epoch not in self._orders:
            self._orders = {near: order for near, order in self._orders.items() if abs(near - epoch) == 1}
            self._orders[epoch] = EpochOrder(self.plan.seed, epoch, self.plan.shard_counts, self.plan.block)
        return self._orders[epoch]
