"""Ranks, devices and collectives. Every function also works in a single process, where it is cheap."""

from imgcap.dist.collectives import broadcast_object, gather_objects, on_main, sum_across_ranks
from imgcap.dist.world import World, close, init

__all__ = ["World", "broadcast_object", "close", "gather_objects", "init", "on_main", "sum_across_ranks"]
