"""What comes into a shard is an upright RGB JPEG, and untouched where it was one."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcap.pictures.normalise import normalised_jpeg, within
from imgcap.pictures.opening import MAX_PIXELS, UnreadableImage

Photo = Callable[..., Path]


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def mean_difference(left: Image.Image, right: Image.Image) -> float:
    return float(np.abs(np.asarray(left, dtype=float) - np.asarray(right, dtype=float)).mean())


@pytest.mark.parametrize("shorter_side", [None, 32, 33, 500])
def test_a_jpeg_that_needs_nothing_keeps_its_bytes(photo: Photo, tmp_path: Path, shorter_side: int | None) -> None:
    data = photo(tmp_path / "a.jpg", 48, 32, comment=b"kept").read_bytes()
    assert normalised_jpeg(data, shorter_side, 90) == data


@pytest.mark.parametrize(
    ("width", "height", "size"), [(300, 200, (96, 64)), (200, 301, (64, 96)), (2000, 65, (1969, 64))]
)
def test_the_shorter_side_is_shrunk(
    photo: Photo, tmp_path: Path, width: int, height: int, size: tuple[int, int]
) -> None:
    image = decoded(normalised_jpeg(photo(tmp_path / "a.jpg", width, height).read_bytes(), 64, 90))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


def test_a_side_that_no_jpeg_can_have_is_shrunk() -> None:
    long = encoded(Image.new("RGB", (70_000, 40), (200, 0, 0)), "PNG")
    assert decoded(normalised_jpeg(long, None, 90)).size == (65_500, 37)
    assert decoded(normalised_jpeg(long, 20, 90)).size == (35_000, 20)


def test_shrinking_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (256, 128)))
    pixels = np.asarray(decoded(normalised_jpeg(encoded(stripes, "PNG"), 32, 95)).convert("L"), dtype=int)
    assert abs(pixels[4:-4, 4:-4] - 127.5).max() < 10  # without a filter the stripes come out black or white


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(photo: Photo, tmp_path: Path, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = decoded(photo(tmp_path / "a.png", 96, 64).read_bytes())
    turned = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decoded(normalised_jpeg(encoded(turned, "JPEG", exif=exif, quality=95), None, 95))
    assert image.size == upright.size
    assert image.getexif().get(0x0112, 1) == 1
    assert mean_difference(image, upright) < 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P"])
def test_other_modes_become_rgb(photo: Photo, tmp_path: Path, mode: str) -> None:
    original = decoded(photo(tmp_path / "a.png", 96, 64).read_bytes()).convert(mode)
    data = encoded(original, "JPEG" if mode in ("L", "CMYK") else "PNG")
    image = decoded(normalised_jpeg(data, None, 95))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert mean_difference(image, original.convert("RGB")) < (
        {"1": 60, "P": 15}.get(mode, 6)
    )  # of few colours, dithered


def test_sixteen_bits_of_grey_are_scaled() -> None:
    grey = Image.fromarray(np.full((32, 32), 0x8000, dtype=np.uint16))
    assert abs(np.asarray(decoded(normalised_jpeg(encoded(grey, "PNG"), None, 95)), dtype=int) - 128).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(mode: str) -> None:
    clear = Image.new("RGBA", (32, 32), (200, 0, 0, 0)).convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    image = decoded(normalised_jpeg(encoded(clear, "PNG", **options), None, 95))
    assert np.asarray(image).min() >= 254


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_are_read(photo: Photo, tmp_path: Path, form: str) -> None:
    original = decoded(photo(tmp_path / "a.png", 96, 64).read_bytes())
    assert mean_difference(decoded(normalised_jpeg(encoded(original, form), None, 95)), original) < 8


def test_what_cannot_be_read_says_why(photo: Photo, tmp_path: Path) -> None:
    data = photo(tmp_path / "a.jpg", 300, 200).read_bytes()
    png = photo(tmp_path / "a.png", 300, 200).read_bytes()
    bomb = encoded(Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)), "PNG")
    cases = {
        b"": "zero bytes",
        b"this is text": "not an image",
        data[: len(data) // 2]: "truncated",
        data[:30]: "not an image|truncated",
        png[: len(png) // 2]: "truncated",
        bomb: "more than 89,478,485 pixels",
    }
    for bad, reason in cases.items():
        for shorter_side in (None, 64):
            with pytest.raises(UnreadableImage, match=reason):
                normalised_jpeg(bad, shorter_side, 90)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_bytes_give_a_picture_or_a_reason(photo: Photo, tmp_path: Path, form: str) -> None:
    whole = encoded(decoded(photo(tmp_path / "a.png", 48, 32).read_bytes()), form)
    random = np.random.default_rng(0)
    for _ in range(150):
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        data[random.integers(0, len(data), size=3)] = random.integers(0, 256, size=3)
        try:
            image = decoded(normalised_jpeg(data.tobytes(), 16, 90))
        except UnreadableImage:
            continue
        assert (image.format, image.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize(("size", "fitted"), [((4, 70_000), (1, 240)), ((300, 200), (240, 160)), ((6, 3), (240, 120))])
def test_a_thumbnail_has_pixels_however_thin_it_is(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert within(Image.new("RGB", size), 240).size == fitted
