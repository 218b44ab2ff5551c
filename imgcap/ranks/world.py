"""This process among the ranks, and its device."""

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed

from imgcap.errors import UserError
from imgcap.ranks.watchdog import Watchdog

TIMEOUT = 1800.0  # scoring 5,000 images on rank 0 takes minutes, not half an hour
MARGIN = 60.0  # seconds that the watchdog, who knows more, speaks before the process group
_watchdogs: list[Watchdog] = []  # of this process: one, between init and close
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@dataclass(frozen=True)
class World:
    """This process among `world_size` ranks; one process alone is rank 0 of 1."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    without_gpu: bool = False  # on the CPU because there is nothing better, not because it was asked for

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def init_ranks(device: str | None = None, timeout: float = TIMEOUT) -> World:
    """Join the ranks that torchrun (or deepspeed) started, on the best device there is.

    A rank that then stands still for `timeout` seconds ends the run (`imgcap.ranks.watchdog`). Raises `UserError` for
    a device that isn't there (`choose_device`), and where the rendezvous fails, for example because its port is in use.
    """
    rank = int(os.environ.get("RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if chosen.type == "cpu":
        _keep_freed_memory()
    if world_size > 1 and not distributed.is_initialized():
        backend = _backend(chosen)
        device_id = chosen if backend == "nccl" else None
        try:
            limit = timedelta(seconds=timeout + MARGIN)
            store, rank, world_size = next(distributed.rendezvous("env://", timeout=limit))
            # torchrun keeps one store across its restarts, where the addresses of the dead would be found.
            store = distributed.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=world_size, timeout=limit, device_id=device_id
            )
        except (distributed.DistError, ValueError) as error:
            address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UserError(
                f"rank {rank} can't meet the others at {address}: {error}; "
                "if the port is in use choose another with torchrun --master_port"
            ) from None
        _watchdogs.append(Watchdog(rank, world_size, timeout))
        _watchdogs[-1].start()
    return World(rank, world_size, local_rank, chosen, without_gpu=not device and chosen.type == "cpu")


def say_without_gpu(world: World, doing: str) -> None:
    """Say once, from rank 0, that the CPU does the work because no GPU was found."""
    if world.is_main and world.without_gpu:
        threads = torch.get_num_threads()
        plural = "" if threads == 1 else "s"
        told = f"no GPU was found: {doing} on the CPU, with {threads} thread{plural} a process"
        print(f"{told} (imgcap train --env says what torch sees)", file=sys.stderr, flush=True)


def close_ranks() -> None:
    """Leave the process group, if there is one."""
    while _watchdogs:
        _watchdogs.pop().stop()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next allocation.

    glibc's malloc gives large blocks back to the system at once, and a step's activations are large: their pages
    are then cleared and mapped anew at each step. Elsewhere than on glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def choose_device(asked: str | None = None) -> torch.device:
    """Choose the device asked for, else the best there is; `cuda` is the GPU of this process's number on its machine.

    Raises `UserError` for a device that isn't there, and where processes are more than GPUs: NCCL wants one for each.
    With IMGCAP_BACKEND=gloo they share what there is.
    """
    name = asked or _best_sort()
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"{name!r} is no device; give cpu, cuda, cuda:1 or mps")
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("mps was asked for, and torch finds no such GPU on this machine; leave it out, or give cpu")
    return _gpu(device) if device.type == "cuda" else device


def _best_sort() -> str:
    if torch.cuda.is_available():
        return "cuda"
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    return "mps" if alone and torch.backends.mps.is_available() else "cpu"


def _gpu(asked: torch.device) -> torch.device:
    """The GPU asked for, or where no number was given that of this process."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = f"{count or 'no'} GPU{'' if count == 1 else 's'}"
    if not count or (asked.index or 0) >= count:
        mend = f"give cuda:0 to cuda:{count - 1}" if count > 1 else "leave it out for the best there is"
        raise UserError(
            f"{asked} was asked for, and torch finds {there} on this machine; {mend} (imgcap train --env says more)"
        )
    if ":" in str(asked):
        return asked
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), local_rank + 1)
    if processes > count and _backend(asked) == "nccl":
        raise UserError(
            f"{processes} processes were started on this machine, which has {there}; lower --nproc_per_node, or set "
            "IMGCAP_BACKEND=gloo: they then share, which is slow"
        )
    return torch.device("cuda", local_rank % count)


def _backend(device: torch.device) -> str:
    """What exchanges tensors between ranks: NCCL on GPUs and gloo elsewhere, or gloo by IMGCAP_BACKEND."""
    asked = os.environ.get("IMGCAP_BACKEND")
    if asked not in (None, "", "gloo"):
        raise UserError(f"IMGCAP_BACKEND={asked} is none to choose; set it to gloo, or leave it out")
    return "gloo" if asked or device.type != "cuda" else "nccl"
