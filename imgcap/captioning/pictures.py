"""Whatever holds a picture in Python, as a PIL picture: paths, addresses, bytes, PIL pictures, arrays and tensors.

Dimensions: C colour channels, H W pixels.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from imgcap.files.fetch import is_address, read_address
from imgcap.pictures.opening import UnreadableImage, decode, open_picture, rgb

Picture: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Tensor
_CHANNELS = (1, 3, 4)  # grey, RGB, RGB on transparent ground


def one_or_many(pictures: "Picture | Iterable[Picture]") -> Iterator[Picture]:
    """Iterate over a picture alone, or those of any iterable; an array or tensor of four dimensions holds many."""
    if isinstance(pictures, np.ndarray | Tensor):
        alone = pictures.ndim < 4
    else:
        whole = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, Mapping)
        alone = isinstance(pictures, whole) or hasattr(pictures, "read")
    yield from (pictures,) if alone or not isinstance(pictures, Iterable) else pictures  # type: ignore[misc]


def as_picture(picture: Picture, size: int, urls: bool = False) -> Image.Image:
    """Turn what holds a picture into an upright RGB one, of a file not much larger than `size` needs.

    Bytes are those of a file. A tensor is (C, H, W), an array (H, W, C) or (H, W), of uint8 or of floats from 0 to 1.
    Addresses are fetched only where `urls` allows it. Raises `UnreadableImage` for what holds none.
    """
    if isinstance(picture, Image.Image):
        return rgb(picture)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] not in _CHANNELS:
            raise UnreadableImage(f"a tensor is (C, H, W) with 1, 3 or 4 channels, and this is {tuple(picture.shape)}")
        return _of_pixels(_as_array(picture.permute(1, 2, 0)))
    if isinstance(picture, np.ndarray):
        if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in _CHANNELS):
            raise UnreadableImage(f"an array is (H, W, C) with 1, 3 or 4 channels, and this is {picture.shape}")
        return _of_pixels(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode(bytes(picture), size)
    if isinstance(picture, str) and is_address(picture):
        return _fetched(picture, size, urls)
    if isinstance(picture, str | os.PathLike):
        return open_picture(Path(os.path.expanduser(os.fsdecode(picture))), size)
    raise UnreadableImage(
        f"{type(picture).__name__!r} is no picture; give a path, a file's bytes, a PIL picture, an array or a tensor"
    )


def _as_array(tensor: Tensor) -> np.ndarray:
    """Copy a tensor into an array; numpy has no bfloat16 and no smaller floats, which float32 holds exactly."""
    try:
        plain = tensor.detach().cpu()
        return (plain.float() if plain.is_floating_point() and plain.itemsize < 4 else plain).numpy()
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantised, or on the meta device
        raise UnreadableImage(f"it is a tensor without plain values: {tensor.dtype}, {tensor.layout}") from None


def _of_pixels(pixels_HWC: np.ndarray) -> Image.Image:
    if not pixels_HWC.size:
        raise UnreadableImage("it has no pixels")
    if np.issubdtype(pixels_HWC.dtype, np.floating):
        low, high = float(pixels_HWC.min()), float(pixels_HWC.max())
        if not (low >= 0 and high <= 1):  # also where one is NaN
            raise UnreadableImage(f"floats go from 0 to 1, and these from {low:g} to {high:g}; do not normalise them")
        pixels_HWC = np.rint(pixels_HWC * 255).astype(np.uint8)
    if pixels_HWC.dtype != np.uint8:
        raise UnreadableImage(f"pixels are uint8, or floats from 0 to 1, and these are {pixels_HWC.dtype}")
    if pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1:
        pixels_HWC = pixels_HWC[..., 0]
    return rgb(Image.fromarray(np.ascontiguousarray(pixels_HWC)))


def _fetched(address: str, size: int, allowed: bool) -> Image.Image:
    if not allowed:
        raise UnreadableImage("it is an address; pass urls=True to have it fetched")
    try:
        return decode(read_address(address), size)
    except FileNotFoundError:
        raise UnreadableImage("there is nothing at this address") from None
