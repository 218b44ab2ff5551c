"""Ranks, devices, collectives and the watchdog. Every function also works in a single process, where it is cheap."""

from imgcap.dist.collectives import (
    begin_sum_across_ranks,
    broadcast_object,
    exchange_seconds,
    gather_objects,
    on_main,
    sum_across_ranks,
)
from imgcap.dist.environment import environment_report
from imgcap.dist.watchdog import at_step, doing
from imgcap.dist.world import World, choose_device, close, init

__all__ = [
    "World",
    "at_step",
    "begin_sum_across_ranks",
    "broadcast_object",
    "choose_device",
    "close",
    "doing",
    "environment_report",
    "exchange_seconds",
    "gather_objects",
    "init",
    "on_main",
    "sum_across_ranks",
]
