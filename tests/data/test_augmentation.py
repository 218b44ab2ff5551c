"""Pictures: evaluation keeps all of them, augmentation depends on its key alone, and `safe` leaves captions true."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.augmentation import augmented_image, eval_image, training_image
from imgcap.data.mirror_words import MIRROR_WORDS, knows_directions, may_be_mirrored
from imgcap.data.safe_operations import LIMITS, moved, toned
from imgcap.pictures.opening import decode


def gradient(width=120, height=80):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def test_evaluation_shows_the_whole_picture():
    image_CHW = eval_image(gradient(), 32)
    assert image_CHW.shape == (3, 32, 32) and image_CHW.dtype == torch.uint8
    assert image_CHW[0, :, 0].max() < 10 and image_CHW[0, :, -1].min() > 245  # left and right borders are in it
    assert image_CHW[1, 0].max() < 10 and image_CHW[1, -1].min() > 245  # and top and bottom


@pytest.mark.parametrize("level", ["light", "strong", "safe"])
def test_augmentation_is_a_function_of_its_key(level):
    keys = [(seed, epoch, sample) for seed in range(2) for epoch in range(3) for sample in range(3)]
    pictures = [augmented_image(gradient(), 32, level, key) for key in keys]
    assert all(
        torch.equal(p, augmented_image(gradient(), 32, level, key)) for p, key in zip(pictures, keys, strict=True)
    )
    assert len({p.numpy().tobytes() for p in pictures}) == len(keys)


def test_augmentation_off_is_the_evaluation_picture():
    assert torch.equal(augmented_image(gradient(), 32, "off", (1, 2, 3)), eval_image(gradient(), 32))


def is_mirrored(image_CHW):
    """Whether a picture of `gradient` is."""
    middle_W = image_CHW[0].float()[image_CHW.shape[1] // 2]
    return bool(middle_W[2] > middle_W[-3])


@pytest.mark.parametrize("level", ["light", "strong", "safe"])
def test_flips_happen_half_the_time(level):
    share = sum(is_mirrored(augmented_image(gradient(), 16, level, (0, 0, i))) for i in range(200)) / 200
    assert 0.38 < share < 0.62


PLAIN = [["two", "dogs", "run", "."], ["a", "bright", "red", "ball", "upright", "on", "grass"]]
TOLD = {  # what a caption may say, by language
    "en": "left right leftmost right-hand clockwise sign letters says writing number",
    "de": "links rechts linken rechtes straßenschild aufschrift hausnummer",
    "fr": "gauche droite droit panneau écrit",
    "es": "izquierda derecha izquierdo letrero",
    "it": "sinistra destra destro cartello",
    "pt": "esquerda direita direito placa",
    "nl": "links rechts linkerkant verkeersbord",
    "ar": "يسار اليمين واليسار الأيمن يساره لافتة",
}


@pytest.mark.parametrize(("language", "word"), [(code, word) for code in TOLD for word in TOLD[code].split()])
def test_safe_never_mirrors_where_any_caption_would_be_untrue(language, word):
    assert may_be_mirrored(PLAIN, language) and not may_be_mirrored([*PLAIN, ["x", word, "."]], language)


@pytest.mark.parametrize("language", MIRROR_WORDS)
def test_every_word_of_the_lists_is_found(language):
    assert knows_directions(language) and knows_directions(f"{language}-XY")
    assert not any(may_be_mirrored([[word.strip("*") + "x"]], language) for word in MIRROR_WORDS[language])


def test_a_picture_that_is_not_mirrored_is_else_the_same():
    data = DataConfig(image_size=32, augment="safe")
    mirrored = 0
    for i in range(60):
        free = training_image(gradient(), data, PLAIN, (0, 0, i))
        bound = training_image(gradient(), data, [*PLAIN, ["on", "the", "left"]], (0, 0, i))
        assert not is_mirrored(bound)
        assert is_mirrored(free) or torch.equal(free, bound)
        mirrored += is_mirrored(free)
    assert 15 < mirrored < 45
    for language in ("xx", "zh"):  # without a list
        other = data.model_copy(update={"language": language})
        assert not any(is_mirrored(training_image(gradient(), other, PLAIN, (0, 0, i))) for i in range(60))


COLOURS = {
    "red": (200, 30, 30), "orange": (255, 140, 0), "yellow": (250, 220, 20), "green": (40, 140, 60),
    "turquoise": (60, 200, 190), "blue": (30, 60, 200), "purple": (120, 40, 160), "pink": (250, 150, 180),
    "brown": (120, 75, 40),
}  # fmt: skip


@pytest.mark.parametrize("colour", COLOURS)
def test_safe_leaves_every_colour_its_hue(colour):
    """A picture of one colour, away from its corners, which may be grey."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*COLOURS[colour])
    picture = Image.new("RGB", (64, 64), COLOURS[colour])
    values = set()
    for i in range(100):
        image_HWC = augmented_image(picture, 48, "safe", (0, 0, i)).permute(1, 2, 0)
        (pixel,) = image_HWC[12:36, 12:36].reshape(-1, 3).unique(dim=0).tolist()
        found = colorsys.rgb_to_hsv(*pixel)
        assert abs((found[0] - hue + 0.5) % 1 - 0.5) * 360 < 2 and found[1] == pytest.approx(saturation, abs=0.02), i
        values.add(found[2])
    assert len(values) > 10 or max(COLOURS[colour]) > 240, "and yet it is lighter and darker"


def test_safe_turns_no_grey_into_a_colour_and_black_and_white_into_no_grey():
    ramp_HWC = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for brightness in np.linspace(-LIMITS["brightness"], LIMITS["brightness"], 5):
        for contrast in np.linspace(-LIMITS["contrast"], LIMITS["contrast"], 5):
            toned_HWC = np.asarray(toned(Image.fromarray(ramp_HWC), brightness, contrast)).astype(int)
            assert (toned_HWC == toned_HWC[..., :1]).all()
            assert (np.diff(toned_HWC[0, :, 0]) >= 0).all(), "what is lighter stays so"
            assert toned_HWC[0, 0, 0] == 0 and toned_HWC[0, -1, 0] == 255
    same_HWC = np.asarray(toned(Image.fromarray(ramp_HWC), 0.0, 0.0))
    assert (same_HWC == ramp_HWC).all()


def test_safe_keeps_what_stands_a_fifth_from_the_edges():
    picture_HWC = np.full((100, 100, 3), 255, np.uint8)
    places = [slice(15, 25), slice(75, 85)]
    for rows in places:
        for columns in places:
            picture_HWC[rows, columns] = 0
    for i in range(300):
        black_HW = augmented_image(Image.fromarray(picture_HWC), 100, "safe", (0, 0, i))[0] < 64
        quarters = black_HW.reshape(2, 50, 2, 50).sum((1, 3))
        assert quarters.min() > 60, i  # of 100 pixels; and each is in the quarter that it was in


def test_pictures_are_moved_about_their_centre():
    picture = Image.new("RGB", (41, 41))
    picture.putpixel((20, 20), (255, 255, 255))
    picture.putpixel((20, 5), (255, 0, 0))  # above it
    assert np.array_equal(moved(picture, 0.0, 0.0, 0.0), picture)
    turned_HW = np.asarray(moved(picture, np.pi / 2, 0.0, 0.0))[..., 0]
    assert turned_HW[20, 20] > 250 and max(turned_HW[20, 5], turned_HW[20, 35]) > 250
    sheared_HW = np.asarray(moved(picture, 0.0, 0.2, 0.0))[..., 0]
    assert sheared_HW[20, 20] > 250 and max(sheared_HW[5, 17], sheared_HW[5, 23]) > 250  # 15 rows of 0.2


def test_scaled_decoding_differs_little_from_full_decoding():
    buffer = io.BytesIO()
    gradient(1200, 800).save(buffer, "JPEG", quality=95)
    scaled, full = decode(buffer.getvalue(), 64), Image.open(buffer).convert("RGB")
    assert scaled.size == (300, 200)  # an eighth would leave less than twice 64
    assert (eval_image(scaled, 64).float() - eval_image(full, 64).float()).abs().mean() < 1.5
