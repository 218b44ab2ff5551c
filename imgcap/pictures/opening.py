"""Opening a picture of any sort: upright, in RGB, on white where it is transparent; or the reason why it can't be.

Every way in opens pictures here, so that all see the same pixels. The file needs Pillow and numpy alone: `imgcap export
--onnx` copies it beside the graphs.
"""

import functools
import importlib
import io
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, features

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's bound against decompression bombs
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112  # EXIF's tag
_ORIENTED_BY = {"exif", "xmp"}  # what a JPEG must hold to say which way is up; most hold neither
_SAY_ORIENTATION = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # of any format
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NOT_OF_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, ends of lines and paragraphs
_DEPTHS = (8, 10, 12, 14, 16)  # bits that sensors and scanners have, whatever the file's

# Of odd EXIF and of large pictures: the checks here decide. `catch_warnings` would not be safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(ValueError):
    """A picture that can't be opened; the message is the reason."""


def decode(data: bytes, size: int | None = None) -> Image.Image:
    """Open a file's bytes as an upright RGB picture, or raise `UnreadableImage`; of several frames it is the first.

    A JPEG is decoded by its own power-of-two scaling where that still leaves twice `size` pixels.
    """
    with named_errors(), opened(data) as image:
        if size is not None:
            image.draft("RGB", (2 * size, 2 * size))
        return rgb(image)


def open_picture(path: Path, size: int | None = None) -> Image.Image:
    """Open a file as `decode` does its bytes; `UnreadableImage` also where they can't be read."""
    if "\0" in str(path):
        raise UnreadableImage("its name holds a NUL, which that of no file does")
    with named_errors():
        data = path.read_bytes()
    return decode(data, size)


@contextmanager
def named_errors() -> Iterator[None]:
    """Raise whatever Pillow or the system raises as `UnreadableImage`, with its reason."""
    try:
        yield
    except UnreadableImage:
        raise
    except OSError as error:
        known = "not an image" if isinstance(error, Image.UnidentifiedImageError) else "truncated or damaged image"
        raise UnreadableImage(f"cannot be read: {error.strerror}" if error.errno else known) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(_too_large(MAX_PIXELS)) from None
    except Exception:  # a damaged file makes Pillow's decoders raise almost anything
        raise UnreadableImage("truncated or damaged image") from None


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a file's bytes, undecoded, in a format that is read here; errors are Pillow's, or `UnreadableImage`."""
    if not data:
        raise UnreadableImage("zero bytes")
    image = Image.open(io.BytesIO(data), formats=_formats_of(data))
    _check_size(image, max_pixels)
    return image


def check_header(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `UnreadableImage` where the first bytes are of no image, or of one that is too large to decode."""
    with named_errors(), opened(data, max_pixels):
        pass


def rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright and into RGB, on white where it is transparent; it may be the very picture.

    Grey of more than 8 bits is scaled by the bits that its values take, grey of fractions (0 to 1) to all 256 shades.
    Raises `UnreadableImage`, also where the picture isn't loaded and its file is damaged or closed.
    """
    with named_errors():
        _check_size(image)
        try:
            image.load()
        except (AssertionError, ValueError):
            if getattr(image, "fp", None) is None:
                raise UnreadableImage("it was closed before it was read; call its load() before that") from None
            raise
        return _in_rgb(_upright(image))


def orientation(image: Image.Image) -> int:
    """Read which way is up: 1, or by EXIF 2 to 8; 1 also where its metadata can't be read."""
    if image.format == "JPEG" and _ORIENTED_BY.isdisjoint(image.info):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION)
        return value if value in _TURNS else 1
    except Exception:  # broken metadata makes Pillow raise almost anything, and says nothing of the pixels
        return 1


def on_one_line(name: object) -> str:
    """Write a file's name as text of one line: line feeds, tabs and bytes that are no text become escapes."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _NOT_OF_A_LINE else letter
        for letter in str(name)
    )


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(orientation(image))
    if turn is None:
        return image
    image = image.transpose(turn)
    for name in _SAY_ORIENTATION:  # it is upright now
        image.info.pop(name, None)
    return image


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _of_grey(image)
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_size(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    if not image.width * image.height:
        raise UnreadableImage("it has no pixels")
    if image.width * image.height > max_pixels:
        raise UnreadableImage(_too_large(max_pixels))


def _too_large(pixels: int) -> str:
    return f"more than {pixels:,} pixels"


def _of_grey(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits or of floats to 8; Pillow's own conversion would clip it."""
    values_HW = np.asarray(image)
    low, high = values_HW.min(), values_HW.max()
    if not (low >= 0 and high < 2**16):  # also where one is NaN
        raise UnreadableImage(f"grey is 0 to 65,535, or floats from 0 to 1, and this goes from {low:g} to {high:g}")
    if image.mode == "F" and high <= 1:
        shades_HW = np.rint(values_HW * 255).astype(np.uint8)
    else:
        bits = next(bits for bits in _DEPTHS if high < 2**bits)
        shades_HW = (values_HW.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    if "transparency" in image.info:
        shades_HW[values_HW == image.info["transparency"]] = 255
    return Image.fromarray(shades_HW).convert("RGB")


def _formats_of(data: bytes) -> tuple[str, ...]:
    """Name the formats to try: those of Pillow, or what the brand in the header of an ISO media file asks for."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _AVIF_BRANDS:
        if not features.check("avif"):
            raise UnreadableImage("an AVIF picture, which needs Pillow 11.3 or newer: pip install -U pillow")
        return ("AVIF",)
    if brand in _HEIF_BRANDS:
        _register_heif()
        return ("HEIF",)
    return _FORMATS


@functools.cache
def _register_heif() -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise UnreadableImage("a HEIC picture, which needs one more package: pip install pillow-heif") from None
