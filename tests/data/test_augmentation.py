"""Pictures: evaluation keeps all of them, augmentation depends on its key alone."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgcap.data.augmentation import augmented_image, eval_image
from imgcap.pictures.opening import decode


def gradient(width=120, height=80):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def test_evaluation_shows_the_whole_picture():
    image_CHW = eval_image(gradient(), 32)
    assert image_CHW.shape == (3, 32, 32) and image_CHW.dtype == torch.uint8
    assert image_CHW[0, :, 0].max() < 10 and image_CHW[0, :, -1].min() > 245  # left and right borders are in it
    assert image_CHW[1, 0].max() < 10 and image_CHW[1, -1].min() > 245  # and top and bottom


@pytest.mark.parametrize("level", ["light", "strong"])
def test_augmentation_is_a_function_of_its_key(level):
    keys = [(seed, epoch, sample) for seed in range(2) for epoch in range(3) for sample in range(3)]
    pictures = [augmented_image(gradient(), 32, level, key) for key in keys]
    assert all(
        torch.equal(p, augmented_image(gradient(), 32, level, key)) for p, key in zip(pictures, keys, strict=True)
    )
    assert len({p.numpy().tobytes() for p in pictures}) == len(keys)


def test_augmentation_off_is_the_evaluation_picture():
    assert torch.equal(augmented_image(gradient(), 32, "off", (1, 2, 3)), eval_image(gradient(), 32))


def test_flips_happen_half_the_time():
    flipped = [augmented_image(gradient(), 16, "light", (0, 0, i))[0].float() for i in range(200)]
    share = sum(float(p[:, 0].mean() > p[:, -1].mean()) for p in flipped) / 200
    assert 0.38 < share < 0.62


def test_scaled_decoding_differs_little_from_full_decoding():
    buffer = io.BytesIO()
    gradient(1200, 800).save(buffer, "JPEG", quality=95)
    scaled, full = decode(buffer.getvalue(), 64), Image.open(buffer).convert("RGB")
    assert scaled.size == (300, 200)  # an eighth would leave less than twice 64
    assert (eval_image(scaled, 64).float() - eval_image(full, 64).float()).abs().mean() < 1.5
