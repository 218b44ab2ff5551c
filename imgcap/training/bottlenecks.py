"""What the steps of a run wait for: the loader, or the exchange of gradients."""

from collections.abc import Mapping

import torch

from imgcap.ranks.collectives import exchange_seconds
from imgcap.ranks.progress import say
from imgcap.ranks.world import World

STARVED = 0.25  # share of the time that goes by waiting for the loader
EXCHANGING = 0.5  # share of a step's time that its exchange would take by itself
SETTLED = 10  # steps; the loader only begins in the first


class Bottlenecks:
    """Tells what a run waits for, each once, on rank 0. The exchange is timed once, with the ranks otherwise idle."""

    def __init__(self, world: World, gradients: int, dtype: torch.dtype, images: int):
        """Take what a step exchanges, so many gradients of a dtype, and what it trains on, so many images."""
        self.world, self.gradients, self.dtype, self.images = world, gradients, dtype, images
        self._exchange: float | None = 0.0 if world.world_size == 1 else None
        self._told: set[str] = set()

    def look(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Look, on all ranks, at what is logged at a step; return what else there is to log."""
        if step <= SETTLED:
            return {}
        if self._exchange is None:
            self._exchange = exchange_seconds(self.gradients, self.dtype, self.world.device)
        waited, exchanged = values["perf/data_wait_share"], self._exchange * values["perf/images_per_s"] / self.images
        if waited > STARVED:
            self._tell(
                f"the loader is the bottleneck: {waited:.0%} of the time goes by waiting for it; raise data.workers, "
                "or build the shards with --resize"
            )
        if exchanged > EXCHANGING:
            volume = self.gradients * self.dtype.itemsize / 1e6
            self._tell(
                f"the interconnect is the bottleneck: exchanging {volume:.0f} MB of gradients takes "
                f"{self._exchange:.3g} s, {exchanged:.0%} of a step's time; raise train.global_batch (with "
                "train.micro_batch, if memory is short), set engine.exchange=bf16, or see with imgcap train --env "
                "which network is used"
            )
        return {"perf/exchange_share": exchanged} if self.world.world_size > 1 else {}

    def _tell(self, line: str) -> None:
        what = line.partition(":")[0]
        if self.world.is_main and what not in self._told:
            say(line)
        self._told.add(what)
