"""Memory: how much tensors take; and where a device's runs out, one line that says what would fit, found by trying."""

import gc
import math
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from imgcap.errors import UserError

T = TypeVar("T")
SHARED = "/dev/shm"


def within_memory(run: Callable[[], T], explain: Callable[[], str]) -> T:
    """Run, and raise `UserError` with what `explain` then finds where the device's memory runs out."""
    try:
        return run()
    except torch.OutOfMemoryError:
        pass  # behind this line its traceback is gone, and with that all that `run` held
    raise UserError(explain())


@contextmanager
def within_shared_memory(size: int) -> Iterator[None]:
    """Context in which shared memory of `size` bytes is allocated; `UserError` where there isn't as much."""
    try:
        yield
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        free, ranks = shutil.disk_usage(SHARED).free, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        for_each = f" for each of {ranks} ranks" if ranks > 1 else ""
        raise UserError(
            f"{SHARED} has {free / 2**20:.0f} MiB free, and the loader's workers need {math.ceil(size / 2**20)} MiB at "
            f"once{for_each}; start a container with --shm-size={1 + 2 * ranks * size // 2**30}g or --ipc=host, or set "
            "a lower data.workers (0 needs none)"
        ) from None


def largest_that_fits(run: Callable[[int], object], sizes: Iterable[int]) -> int | None:
    """Run with one size after another, and return the first that the memory is enough for; None where it never is."""
    return next((size for size in sizes if _fits(run, size)), None)


def halves(size: int, of: int = 0) -> list[int]:
    """Sizes below `size`, each half of the last or less, down to 1; with `of` only those that divide it.

    >>> halves(20), halves(20, of=60), halves(1)
    ([10, 5, 2, 1], [10, 5, 2, 1], [])
    >>> halves(18, of=18)
    [9, 3, 1]
    """
    found = []
    while size > 1:
        size = next(smaller for smaller in range(size // 2, 0, -1) if not of % smaller)
        found.append(size)
    return found


def batch_that_fits(run: Callable[[int], object], batch: int, device: torch.device, what: str, key: str) -> str:
    """Try smaller batches, and tell in a line of `what` so many don't fit, and which number of them does as `key`."""
    fits = largest_that_fits(run, halves(batch))
    mend = f"{key}={fits} fits" if fits else "not even one fits: lower data.image_size or the beam"
    return f"{place_of(device)} has no room to {what} {batch} pictures at once; {mend}"


def is_short(device: torch.device) -> bool:
    """Whether less than a third of a GPU's memory is free for what isn't training."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return 3 * free < total


def place_of(device: torch.device) -> str:
    """A device as an error names it, a GPU with the size of its memory."""
    if device.type != "cuda":
        return f"the {device.type}"
    gpu = torch.cuda.get_device_properties(device)
    return f"GPU {device.index} ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)"


def _fits(run: Callable[[int], object], size: int) -> bool:
    gc.collect()
    with suppress(RuntimeError):  # after a capture that failed, some versions of torch can't
        torch.cuda.empty_cache()
    try:
        run(size)
    except torch.OutOfMemoryError:
        return False
    return True


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors while they live: those given, and all that operations make in its context.

    What an operation needs within it is not seen.
    """

    def __init__(self, given: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._count(given)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        others = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        self._count([tensor for tensor in _tensors(result) if id(tensor.untyped_storage()) not in others])
        return result

    def _count(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _freed(self, size: int) -> None:
        self.live -= size

    def turn(self) -> int:
        """Return the most bytes that lived since the last turn."""
        peak, self.peak = self.peak, self.live
        return peak


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
