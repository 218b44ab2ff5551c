"""Fetching the shards of a remote set ahead of the steps that read them."""

from collections.abc import Callable, Sequence
from threading import Condition, Thread

import numpy as np

from imgcap.data.order import EndlessOrder
from imgcap.data.plan import Plan
from imgcap.errors import UserError
from imgcap.shards.reader import ShardReader

AHEAD = 2  # blocks: the one that is being read, and the next


def block_of_cache(reader: ShardReader, sets: int = 1) -> int | None:
    """The number of shards to mix so that the cache holds `AHEAD` blocks; None where it holds all, or all is here.

    The cache is shared by so many remote `sets`.
    """
    if not reader.is_remote:
        return None
    sizes = [shard.bytes + (shard.captions.bytes if shard.captions else 0) for shard in reader.shards]
    bound = reader.place.cache.bound // sets
    return None if sum(sizes) <= bound else max(bound // AHEAD // max(sizes), 1)


class Prefetcher:
    """Fetches the shards of the block that is being read and then of the one behind it, in a thread that owns `order`.

    Ranks of one machine begin at different shards, so that each fetches another; the cache's locks see to the rest.
    What can't be fetched is left to whoever reads it, who raises.
    """

    def __init__(self, reader: ShardReader, order: EndlessOrder, rank: int):
        self.reader, self.order, self.rank = reader, order, rank
        self._position = -1
        self._moved = Condition()
        self._thread: Thread | None = None
        self._fetched: set[tuple[int, int]] = set()  # pass and number of a block

    def go_to(self, position: int) -> None:
        """Tell that a position of the order is about to be read. The first call begins the thread."""
        with self._moved:
            self._position = position
            self._moved.notify()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="prefetcher", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                for number, block in self.order.blocks(self._position, AHEAD):
                    self._fetch(number, block)
                with self._moved:
                    position = self._position
                    self._moved.wait_for(lambda position=position: self._position != position)  # type: ignore[misc]
        except UserError:
            return

    def _fetch(self, number: int, block: int) -> None:
        if (number, block) in self._fetched:
            return
        for shard in np.roll(self.order.epoch(number).blocks[block], -self.rank):
            self.reader.fetch(int(shard))
        self._fetched.add((number, block))


def prefetching(readers: Sequence[ShardReader], plan: Plan, rank: int) -> Callable[[int], None]:
    """Make a function to tell each step that is about to be read: a plan's remote sets are fetched ahead of it.

    Its first call begins a thread for each set, and should come after workers have been forked.
    """
    numbered = enumerate(zip(readers, plan.orders(), strict=True))
    prefetchers = {number: Prefetcher(*pair, rank) for number, pair in numbered if pair[0].is_remote}

    def go_to(step: int) -> None:
        positions = plan.positions(step) if prefetchers else []
        for number, prefetcher in prefetchers.items():
            prefetcher.go_to(positions[number])

    return go_to
