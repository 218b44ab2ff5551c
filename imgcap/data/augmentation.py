"""Making a picture a square uint8 tensor: as it is for evaluation, augmented by key for training."""

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance

from imgcap.data.keyed_random import generator

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# What each level does: area and aspect of the random crop, and the strength of colour jitter.
_CROP_SCALE = {"light": (0.7, 1.0), "strong": (0.4, 1.0)}
_JITTER = {"light": 0.0, "strong": 0.3}
_LOG_ASPECT = math.log(4 / 3)


def eval_image(image: Image.Image, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Resize the whole picture to (3, size, size) uint8. It is squeezed, not cropped: nothing of it is lost.

    `interpolation` is bilinear or bicubic, as the encoder's pictures had it.
    """
    return _to_tensor(_squeezed(image, size, interpolation))


def augmented_image(
    image: Image.Image,
    size: int,
    level: str,
    key: tuple[int, ...],
    out_HWC: np.ndarray | None = None,
    interpolation: str = "bilinear",
) -> torch.Tensor:
    """Crop, flip and jitter a picture at random: (3, size, size) uint8, in `out_HWC` where it is given.

    `level` is off, light or strong. The same `key` (seed, pass, sample) gives the same picture on any rank or worker.
    """
    if level == "off":
        return _to_tensor(_squeezed(image, size, interpolation), out_HWC)
    random = generator(*key)
    box = _random_box(image.size, _CROP_SCALE[level], random)
    image = image.resize((size, size), RESAMPLING[interpolation], box=box, reducing_gap=2.0)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    strength = _JITTER[level]
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color) if strength else ():
        image = enhance(image).enhance(random.uniform(1 - strength, 1 + strength))
    return _to_tensor(image, out_HWC)


def _random_box(
    size: tuple[int, int], scale: tuple[float, float], random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a crop of random area and aspect, relative to the picture's own aspect, always inside it."""
    width, height = size
    side = math.sqrt(random.uniform(*scale))
    stretch = math.exp(random.uniform(-_LOG_ASPECT, _LOG_ASPECT) / 2)
    crop_width, crop_height = min(side * stretch, 1.0) * width, min(side / stretch, 1.0) * height
    left, top = random.uniform(0, width - crop_width), random.uniform(0, height - crop_height)
    return left, top, left + crop_width, top + crop_height


def _squeezed(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    return image.resize((size, size), RESAMPLING[interpolation], reducing_gap=2.0)


def _to_tensor(image: Image.Image, out_HWC: np.ndarray | None = None) -> torch.Tensor:
    """View a picture as (3, H, W), with the channels last in memory, as Pillow has them and the encoder wants them."""
    if out_HWC is None:
        out_HWC = np.array(image)
    else:
        out_HWC[:] = np.asarray(image)
    return torch.from_numpy(out_HWC).permute(2, 0, 1)
