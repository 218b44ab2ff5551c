"""The watchdog that ends a run that stands still, and says which rank holds it up, at which step, in what.

Every rank says what it does (`at_step`, `doing`, and each collective for itself) and tells it to the others through
the rendezvous store. A rank that does one thing for too long looks up what the others do, says so and ends.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as distributed

FAULT = 1
LOOK_EVERY = 0.5  # seconds
PATIENCE = timedelta(seconds=5)  # with a store that does not answer
_state: dict[str, Any] = {"step": 0, "doing": "starting", "waits": False, "since": time.monotonic()}


def at_step(step: int) -> None:
    """Tell that this rank works on a step from now on."""
    _state["step"] = step


def doing(what: str, waits: bool = False) -> None:
    """Tell what this rank begins; it `waits` where it can't go on without the others."""
    _state.update(doing=what, waits=waits, since=time.monotonic())


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Tell that this rank is in a collective, as long as the context lasts."""
    before = _state["doing"], _state["waits"]
    doing(what, waits=True)
    try:
        yield
    finally:
        doing(*before)


class Watchdog:
    """A rank's watchdog: one thread tells the others what the rank does, one looks at the clock (`timeout` seconds)."""

    def __init__(self, rank: int, world_size: int, timeout: float):
        self.rank, self.world_size, self.timeout = rank, world_size, timeout
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, name="watchdog", daemon=True) for work in (self._tell, self._look)
        ]

    def start(self) -> None:
        doing("starting")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads: Python, where it exits, can't end one that is inside the store."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE.total_seconds())

    def _tell(self) -> None:
        store, over = _own_store(), False
        while not over:
            try:
                store.set(f"imgcap/doing/{self.rank}", json.dumps(_now()))
            except RuntimeError:  # the store is gone with its host, or the run is over
                return
            over = self._over.wait(LOOK_EVERY)

    def _look(self) -> None:
        while (now := _now())["seconds"] < self.timeout:
            if self._over.wait(min(LOOK_EVERY, self.timeout / 4)):
                return
        message = [f"rank {self.rank} has stood still for {now['seconds']:.0f} s (engine.timeout): {_said(now)}"]
        if now["waits"]:
            message += self._others()
        print("error: " + "; ".join(message), file=sys.stderr, flush=True)
        if not now["waits"]:
            faulthandler.dump_traceback(file=sys.stderr, all_threads=False)
        os._exit(FAULT)

    def _others(self) -> list[str]:
        """Say what the ranks that hold this one up are doing."""
        found: dict[int, dict[str, Any]] = {}

        def ask() -> None:
            store = _own_store()
            for rank in range(self.world_size):
                if rank != self.rank and store.check([key := f"imgcap/doing/{rank}"]):
                    found[rank] = json.loads(store.get(key))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(PATIENCE.total_seconds())
        if len(found) < self.world_size - 1:
            missing = [str(rank) for rank in range(self.world_size) if rank != self.rank and rank not in found]
            return [
                f"rank {', '.join(missing)} can't be reached; look at the network between the hosts "
                "(GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME name the interface)"
            ]
        working = {rank: said for rank, said in found.items() if not said["waits"]}
        behind = working or {rank: said for rank, said in found.items() if said["step"] < _state["step"]} or found
        return [f"it waits for rank {rank}, which is {_said(said)}" for rank, said in sorted(behind.items())]


def _now() -> dict[str, Any]:
    return {**_state, "seconds": time.monotonic() - _state["since"]}


def _said(said: dict[str, Any]) -> str:
    return f"at step {said['step']} in {said['doing']!r} for {said['seconds']:.0f} s"


def _own_store() -> Any:
    """Open a connection to the rendezvous store: the main thread may hold the usual one while it waits."""
    store = distributed.distributed_c10d._get_default_store().clone()
    store.set_timeout(PATIENCE)
    return store
