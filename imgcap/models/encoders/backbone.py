"""What an encoder needs to know of a network that somebody else wrote, whatever its family: all of it data.

Dimensions: B images, C channels of the last stage's output, Y X rows and columns of its grid, P = YX grid cells,
E encoder width.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn


class Backbone(NamedTuple):
    """A network without its classifier, and how to walk over it."""

    module: nn.Module
    stages: Mapping[str, tuple[str, ...]]  # first to last, by name: the modules that run one after another
    to_cells: Callable[[Tensor], Tensor]  # the last stage's output as features_BPE
    width: int  # E
    stride: int  # pixels of the image from one cell to the next
    classifier: str  # prefix of the published weights that belong to what was taken off
    mean: tuple[float, ...]  # of the images it was trained on, whose pixels run from 0 to 1
    std: tuple[float, ...]


def grid_to_cells(features_BCYX: Tensor) -> Tensor:
    """Flatten a grid to cells (B, P, E) in row-major order. Channels last lies so in memory: this is a view."""
    return features_BCYX.permute(0, 2, 3, 1).flatten(1, 2)
