"""Making a picture a square uint8 tensor: as it is for evaluation, augmented by key for training."""

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance

from imgcap.config.data import DataConfig
from imgcap.data.keyed_random import generator
from imgcap.data.mirror_words import may_be_mirrored
from imgcap.data.safe_operations import safe_operations

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# What each level does: least area and greatest aspect of the random crop, and the strength of colour jitter.
_CROP = {"light": (0.7, 4 / 3), "strong": (0.4, 4 / 3), "safe": (0.8, 1.1)}
_JITTER = {"light": 0.0, "strong": 0.3, "safe": 0.0}


def eval_image(image: Image.Image, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Resize the whole picture to (3, size, size) uint8. It is squeezed, not cropped: nothing of it is lost.

    `interpolation` is bilinear or bicubic, as the encoder's pictures had it.
    """
    return _to_tensor(_squeezed(image, size, interpolation))


def training_image(
    image: Image.Image,
    data: DataConfig,
    captions: list[list[str]],
    key: tuple[int, ...],
    out_HWC: np.ndarray | None = None,
) -> torch.Tensor:
    """Augment a picture as a configuration says: (3, size, size) uint8. `captions` are all those that it has."""
    mirrors = data.augment != "safe" or may_be_mirrored(captions, data.language)
    return augmented_image(image, data.image_size, data.augment, key, out_HWC, data.interpolation, mirrors)


def augmented_image(
    image: Image.Image,
    size: int,
    level: str,
    key: tuple[int, ...],
    out_HWC: np.ndarray | None = None,
    interpolation: str = "bilinear",
    mirrors: bool = True,
) -> torch.Tensor:
    """Crop, flip and jitter a picture at random: (3, size, size) uint8, in `out_HWC` where it is given.

    `level` is off, light, strong or safe; `mirrors=False` only keeps it from being flipped. The same `key` (seed, pass,
    sample) gives the same picture on any rank or worker.
    """
    if level == "off":
        return _to_tensor(_squeezed(image, size, interpolation), out_HWC)
    random = generator(*key)
    box = _random_box(image.size, *_CROP[level], random)
    image = image.resize((size, size), RESAMPLING[interpolation], box=box, reducing_gap=2.0)
    if random.random() < 0.5 and mirrors:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    strength = _JITTER[level]
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color) if strength else ():
        image = enhance(image).enhance(random.uniform(1 - strength, 1 + strength))
    if level == "safe":
        image = safe_operations(image, random)
    return _to_tensor(image, out_HWC)


def _random_box(
    size: tuple[int, int], least_area: float, greatest_aspect: float, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a crop of random area and aspect, relative to the picture's own, always inside it."""
    width, height = size
    side = math.sqrt(random.uniform(least_area, 1.0))
    log_aspect = math.log(greatest_aspect)
    stretch = math.exp(random.uniform(-log_aspect, log_aspect) / 2)
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
