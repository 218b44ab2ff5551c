"""Searches on a GPU: a step is a CUDA graph, kept from search to search, and the host seldom looks.

A graph has one number of images. A search begins with its batch padded to a power of two, and goes on in the smallest
graph that holds what is still open. What a step reads and writes lies at fixed addresses: all of `Live` is copied
there, also the weights that every search prepares anew. The others are read where they are; where they have moved, the
graph is another.

Dimensions: B images of the batch, P grid cells, E encoder width.
"""

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Frontier
from imgcap.decoding.live import Live, advance, begin
from imgcap.models.kernels.graphs import Graph, NotCaptured, Pool

DEVICES = ("cuda",)  # whose searches are captured
SMALLEST = 8  # images of a graph; with fewer a step takes as long
LOOK = 4  # steps from one look at what is open to the next
KEPT = 16  # graphs of a device, those used last

Members = tuple["weakref.ref[Any]", ...]  # the decoders of an ensemble, which a graph must not keep alive


def _bucket(images: int) -> int:
    """Images of the smallest graph that holds so many."""
    return max(SMALLEST, 1 << (images - 1).bit_length())


class CapturedSteps:
    """Steps of the searches on one device, which take place one after another."""

    look = LOOK

    def __init__(self, device: torch.device):
        self.device, self.memory, self.turn = device, Pool(device), threading.Lock()
        self.kept: list[_Steps] = []  # that used last is the first

    def begin(self, ensemble: Ensemble, features_BPE: Sequence[Tensor], frontier: Frontier, *settings: Any) -> Live:
        """`imgcap.decoding.live.begin`, of a graph's number of images; those that are none are never open."""
        images = len(features_BPE[0])
        missing = _bucket(images) - images
        if missing:
            features_BPE = [F.pad(own_BPE, (0, 0, 0, 0, 0, missing)) for own_BPE in features_BPE]
            index_R = torch.arange(images + missing, device=self.device)
            frontier = frontier.select(index_R.clamp_(max=images - 1))
        live = begin(ensemble, features_BPE, frontier, *settings, whole_beam=True)
        live.log_prob_RW[images:] = -torch.inf
        return live

    def size(self, remaining: int, images: int) -> int:
        """With how many of its images a search goes on."""
        return min(_bucket(remaining), images)

    def advance(self, live: Live, ensemble: Ensemble, last: bool) -> Live:
        """`imgcap.decoding.live.advance` as a graph; what it returns is good until the next call."""
        if not self.kept or self.kept[0].live is not live:
            self._find(live, ensemble)
        return self.kept[0].run(last)

    def _find(self, live: Live, ensemble: Ensemble) -> None:
        """Put the steps that are captured for these shapes, settings and weights first, and the search into them."""
        key = _key(live, ensemble)
        found = next((steps for steps in self.kept if steps.key == key), None)
        if found is None:
            members = tuple(weakref.ref(decoder, self._forget) for decoder in ensemble.decoders)
            found = _Steps(key, live, members, self.memory)
        else:
            self.kept.remove(found)
            _write(found.live, live)
        self.kept = [found, *self.kept[: KEPT - 1]]

    def _forget(self, member: "weakref.ref[Any]") -> None:
        """Free the graphs of a decoder that is no more."""
        self.kept = [steps for steps in self.kept if all(own is not member for own in steps.members)]


class _Steps:
    """The graphs of one kind of search and one number of images: of the last step and of those before it."""

    def __init__(self, key: object, live: Live, members: Members, memory: Pool):
        self.key, self.members = key, members
        self.live: Live = tree_map_only(Tensor, partial(torch.clone, memory_format=torch.contiguous_format), live)
        self._functions = {last: partial(_step, self.live, members, last) for last in (False, True)}
        self._graphs: dict[bool, Callable[[], None]] = {
            last: Graph(function, memory.device, memory) for last, function in self._functions.items()
        }

    def run(self, last: bool) -> Live:
        try:
            self._graphs[last]()
        except NotCaptured as reason:
            _say(f"searching without CUDA graphs, more slowly: {reason}")
            self._graphs[last] = self._functions[last]
            self._graphs[last]()
        return self.live


def _step(live: Live, members: Members, last: bool) -> None:
    """Take a step in place."""
    _write(live, advance(live, Ensemble([member() for member in members]), last))  # type: ignore[misc]


def _write(live: Live, new: Live) -> None:
    """Copy a search into the place of another like it, all tensors of one dtype at once."""
    written: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for old, value in zip(tree_leaves(live), tree_leaves(new), strict=True):
        if isinstance(old, Tensor) and value is not old:
            places, values = written.setdefault(old.dtype, ([], []))
            places.append(old)
            values.append(value.contiguous())  # others would be copied one by one
    for places, values in written.values():
        torch._foreach_copy_(places, values)


def _key(live: Live, ensemble: Ensemble) -> object:
    """All that a graph holds, beside the values of the search's tensors."""
    leaves, tree = tree_flatten(live)
    kinds = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    weights = [
        [tensor.data_ptr() for tensor in chain(decoder.parameters(), decoder.buffers())]
        for decoder in ensemble.decoders
    ]
    device = live.step.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    modes = autocast, torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    members = [(weakref.ref(decoder), decoder.training) for decoder in ensemble.decoders]
    return tree, kinds, members, weights, modes


@functools.cache
def captured_steps(device: torch.device) -> CapturedSteps:
    """Captured steps of a device, for the life of the process."""
    return CapturedSteps(device)


@functools.cache
def _say(message: str) -> None:
    """Tell once."""
    print(message, file=sys.stderr)
