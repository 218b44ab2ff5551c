"""CUDA graphs: a function of tensors at fixed addresses, launched as one piece.

On a GPU a small model's step waits for its thousands of kernels to be launched one by one. A graph launches them all at
once, but it is blind: it reads and writes the very memory that it was captured with. What goes in is therefore copied
into `Static` tensors, and what comes out is to be read before the next call.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

T = TypeVar("T")
_capturing = threading.Lock()  # torch empties the caches of all devices before a capture: no other may be under way
_failed: list[str] = []  # why a capture of this process failed
WARM = 2  # calls before the capture, in which libraries load, kernels compile and the optimiser's state is made


class NotCaptured(Exception):
    """A function that a graph can't hold, with the reason in a line. What it would have computed is not computed."""

    def __init__(self, reason: str, out_of_memory: bool = False):
        super().__init__(reason)
        self.out_of_memory = out_of_memory


class Graph(Generic[T]):
    """A function that takes no arguments and reads tensors of fixed addresses, never the host's view of a device's.

    It runs as it is the first `WARM` times, each a full call with all its effects, is captured then, and replayed from
    there on. Raises `NotCaptured` where that fails. Random numbers come from the generator as it is seeded before each
    call, the same as without a graph. On a CPU it always runs as it is, and only the place of the result is a graph's.
    """

    def __init__(self, function: Callable[[], T], device: torch.device, pool: "Pool | None" = None):
        self.function, self.device, self.pool = function, device, pool or Pool(device)
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: T | None = None

    def __call__(self) -> T:
        """Compute the function; its tensors are good until the next call of a graph of this pool."""
        if self.device.type != "cuda":
            return self._in_place(self.function())
        if self._graph is None and self._calls < WARM:
            self._calls += 1
            with self.pool.on_stream(), _uncached_casts():
                return self.function()
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()
        return cast(T, self._result)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture the function. Where one capture of this process has failed, torch's allocator may take no other."""
        if _failed:
            raise NotCaptured(_failed[0])
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        reasons: list[RuntimeError] = []
        try:
            # Of this thread alone: others, as a loader's that pins memory, may go on meanwhile.
            place = torch.cuda.graph(graph, self.pool.handle, self.pool.stream, capture_error_mode="thread_local")
            with _capturing, _uncached_casts(), place, _noting(reasons):
                self._result = self.function()
        except RuntimeError as error:  # running out of memory is one: without a graph there may be enough
            torch.cuda.set_stream(current)  # torch leaves it where the end of a capture fails
            _draw_again(self.device)
            reason = reasons[0] if reasons else error
            _failed.append(first_line(reason))
            raise NotCaptured(_failed[0], isinstance(reason, torch.OutOfMemoryError)) from error
        return graph

    def _in_place(self, result: T) -> T:
        """Put a result where the first one was, as a replay does."""
        if self._result is None:
            self._result = tree_map_only(Tensor, Tensor.clone, result)
        for kept, new in zip(tree_leaves(self._result), tree_leaves(result), strict=True):
            if isinstance(new, Tensor):
                kept.copy_(new)
        return self._result


class Pool:
    """Memory and stream that graphs share which never run at the same time, so that together they need that of one."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.handle = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Run on the stream of the captures, after what is under way and before what comes."""
        current = torch.cuda.current_stream(self.device)
        assert self.stream is not None, "only a GPU's pool has a stream"
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)


class Static(Generic[T]):
    """Tensors at fixed addresses, in any tree of tuples, lists and dicts, that take over what is put in."""

    def __init__(self, like: T):
        self.value: T = tree_map_only(Tensor, _copied, like)
        self._leaves, self._tree = tree_flatten(self.value)

    def put(self, value: T) -> T:
        """Copy tensors of the same shapes in, and return the static ones. Whatever isn't a tensor has to be equal."""
        leaves, tree = tree_flatten(value)
        assert tree == self._tree, "static tensors have one shape"
        for kept, new in zip(self._leaves, leaves, strict=True):
            if isinstance(new, Tensor):
                kept.copy_(new, non_blocking=True)
            else:
                assert kept == new, "only tensors change"
        return tree_unflatten(self._leaves, self._tree)


def _copied(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor).copy_(tensor)


def _draw_again(device: torch.device) -> None:
    """Give a GPU's generator a state that draws: that of before a failed capture waits for its end for ever."""
    generator = torch.cuda.default_generators[device.index]
    state = torch.Generator(device).manual_seed(generator.initial_seed())
    generator.graphsafe_set_state(state.graphsafe_get_state())


@contextmanager
def _noting(reasons: list[RuntimeError]) -> Iterator[None]:
    """Note why what is captured failed: the end of the capture fails too, and tells less."""
    try:
        yield
    except RuntimeError as error:
        reasons.append(error)
        raise


def first_line(error: Exception) -> str:
    """The first line of what an error says, or else its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _uncached_casts() -> Iterator[None]:
    """Let autocast cast weights anew: a cast that it keeps would lie in memory that a replay overwrites."""
    kept = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
