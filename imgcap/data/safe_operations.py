"""Random operations on a picture that leave its captions true, in the manner of RandAugment.

RandAugment (Cubuk et al. 2020, arxiv.org/abs/1909.13719) draws two operations of a list, each with a strength. These
are those of its list that captions bear: nothing leaves the picture, no colour gets another name.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance

# The strength of each is drawn between -limit and limit.
LIMITS = {
    "rotate": math.radians(10),  # about the centre
    "shear_x": 0.1,  # of the height
    "shear_y": 0.1,  # of the width
    "brightness": 0.5,  # exponents from exp(-0.5) to exp(0.5), on the scale from black to white
    "contrast": 0.6,  # at middle grey the slope is 0.7 to 1.3
    "sharpness": 0.9,  # from nearly Pillow's SMOOTH to as much beyond the picture
}
_DRAWN = 2
_GREY = (128, 128, 128)  # where a turned picture leaves a corner free
_VALUES = np.arange(256)


def safe_operations(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Apply two operations, drawn with their strengths from `random`, to an RGB picture."""
    strength = dict.fromkeys(LIMITS, 0.0)
    for name in random.permutation(list(LIMITS))[:_DRAWN]:
        strength[name] = random.uniform(-LIMITS[name], LIMITS[name])
    if strength["rotate"] or strength["shear_x"] or strength["shear_y"]:
        image = moved(image, strength["rotate"], strength["shear_x"], strength["shear_y"])
    if strength["brightness"] or strength["contrast"]:
        image = toned(image, strength["brightness"], strength["contrast"])
    if strength["sharpness"]:
        image = ImageEnhance.Sharpness(image).enhance(1 + strength["sharpness"])
    return image


def moved(image: Image.Image, angle: float, shear_x: float, shear_y: float) -> Image.Image:
    """Rotate a picture by an angle in radians and shear it, about its centre, in one resampling."""
    sine, cosine = math.sin(angle), math.cos(angle)
    to_source = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1, shear_x], [shear_y, 1]])
    centre = np.array(image.size) / 2
    (a, b), (d, e) = to_source
    c, f = centre - to_source @ centre
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=_GREY
    )


def toned(image: Image.Image, brightness: float, contrast: float) -> Image.Image:
    """Bend the scale from black to white; hue and saturation, of HSV, stay, as do black and white themselves.

    The curve is that of a pixel's lightest channel, and the others follow in proportion. Pillow's own operations bend
    each channel by itself, and where one of them is cut off at white, orange becomes yellow.
    """
    x = (_VALUES / 255) ** math.exp(-brightness)
    curve = 255 * (x + contrast * (x * x * (3 - 2 * x) - x))
    gain = (curve / np.maximum(_VALUES, 1)).astype(np.float32)
    pixels_HWC = np.asarray(image)
    lightest_HW = np.maximum(np.maximum(pixels_HWC[..., 0], pixels_HWC[..., 1]), pixels_HWC[..., 2])
    return Image.fromarray((pixels_HWC * gain[lightest_HW][..., None] + 0.5).astype(np.uint8))
