"""What an encoder needs to know of a network that somebody else wrote, whatever its family: all of it data.

Dimensions: B images, C channels of the last part's output, Y X rows and columns of its grid, P cells,
E encoder width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Input(NamedTuple):
    """The pictures that a network was trained on."""

    mean: tuple[float, ...]  # of pixels that run from 0 to 1
    std: tuple[float, ...]
    size: int  # pixels of a side
    interpolation: str  # with which they were brought to it: bilinear or bicubic
    any_size: bool  # of pictures; else `size` alone


class Stage(NamedTuple):
    """A part of a network that trains or is frozen as one."""

    parameters: tuple[str, ...]  # of the network, by name
    modules: tuple[nn.Module, ...]  # that are of this stage alone: their BatchNorm rests while it is frozen


class Part(NamedTuple):
    """A module that runs some stages of a network."""

    run: nn.Module
    stages: int  # that have run when it has, from the first stage on


class Backbone(NamedTuple):
    """A network without its classifier, and how to walk over it."""

    module: nn.Module
    width: int  # of a feature vector
    stages: Mapping[str, Stage]  # first to last
    parts: Sequence[Part]  # one after another
    to_cells: Callable[[Tensor], Tensor]  # the last part's output as features_BPE, row by row
    classifier: tuple[str, ...]  # prefixes of the published weights that belong to what was taken off
    input: Input
    leading: int = 0  # tokens before the cells of the grid, as class and registers


def stages_of(network: nn.Module, runs: Mapping[str, nn.Module]) -> tuple[dict[str, Stage], list[Part]]:
    """Stages and parts of a network that runs as these modules, one after another, which share its parameters."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    stages, parts = {}, []
    for number, (stage, run) in enumerate(runs.items()):
        stages[stage] = Stage(tuple(names[id(parameter)] for parameter in run.parameters()), (run,))
        parts.append(Part(run, number + 1))
    return stages, parts


def grid_to_cells(features_BCYX: Tensor) -> Tensor:
    """Flatten a grid to cells (B, P, E) in row-major order. Channels last lies so in memory: this is a view."""
    return features_BCYX.permute(0, 2, 3, 1).flatten(1, 2)
