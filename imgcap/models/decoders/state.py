"""What a decoder carries from one token to the next, and how a search moves it.

Its parts differ in how often they are made: *prepared* weights once a call, tensors of an *image* once an image,
tensors of a *row* (a caption, a beam, a sample) at each token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from imgcap.models.kernels.trees import Tree


class Axes(NamedTuple):
    """Axes of a tensor that count the images and an image's rows; none: the rows share it."""

    image: int
    row: int | None = None
    moves: bool = True  # with its row; else the rows find what is theirs by another tensor


@dataclass(frozen=True)
class DecoderState(Tree):
    """A decoder's state for K rows of each of B images. A subclass adds tensors, and says which axes they have.

    A tensor that a decoder has no use for is None.
    """

    prepared: Any  # weights, joined and in the dtype of the matmul: a step neither joins nor casts them again
    axes: ClassVar[Mapping[str, Axes]]  # of each tensor, by name: first those of rows, then those of images

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state that are there, by name, in the order of `axes`."""
        found = {name: getattr(self, name) for name in self.axes}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """This state with some of its tensors replaced."""
        return replace(self, **tensors)

    def select(self, images_S: Tensor) -> Self:
        """Keep only some of the images, with all their rows."""
        chosen = {name: x.index_select(self.axes[name].image, images_S) for name, x in self.tensors().items()}
        return self.with_tensors(chosen)

    def reorder(self, beams_BW: Tensor) -> Self:
        """Let row w of image b become what row beams_BW[b, w] was; what an image's rows share is not copied."""
        moved = {}
        for name, tensor in self.tensors().items():
            image, row, moves = self.axes[name]
            if row is not None and moves:
                shape, after = [1] * tensor.ndim, list(tensor.shape)
                shape[image], shape[row] = beams_BW.shape
                after[row] = shape[row]
                moved[name] = tensor.gather(row, beams_BW.view(shape).expand(after))
        return self.with_tensors(moved)
