"""Making any photo an RGB JPEG, upright and no larger than wanted. A JPEG that needs nothing keeps its bytes."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps

from imgcap.pictures.formats import MissingOpener, opened

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's bound against decompression bombs
_TOO_LARGE = "more than {:,} pixels"
_EXIF_ORIENTATION = 0x0112
_ORIENTED_BY = {"exif", "xmp"}  # what a JPEG must hold to say which way is up; most hold neither
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


class UnreadableImage(Exception):
    """An image that cannot be in a shard set; the message is the reason."""


def normalised_jpeg(data: bytes, shorter_side: int | None, quality: int) -> bytes:
    """Make a file's bytes those of an RGB JPEG, EXIF rotation applied, the shorter side at most `shorter_side` pixels.

    Never upscaled; transparent parts become white. The very bytes come back where nothing is to do. Raises
    `UnreadableImage` for what is no image, damaged or too large.
    """
    if not data:
        raise UnreadableImage("zero bytes")
    picture = _upright(data, shorter_side)
    if picture is None:
        return data
    picture = _in_rgb(picture)
    if shorter_side is not None and min(picture.size) > shorter_side:
        picture = picture.resize(_shrunk(picture.size, shorter_side), Image.Resampling.BICUBIC)
    return jpeg_of(picture, quality)


def jpeg_of(picture: Image.Image, quality: int) -> bytes:
    """Encode an RGB picture as the bytes of a JPEG file."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def check_header(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `UnreadableImage` where the first bytes are of no image, or of one that is too large to decode."""
    if not data:
        raise UnreadableImage("zero bytes")
    with _named_errors(), opened(data) as image:
        if image.width * image.height > max_pixels:
            raise UnreadableImage(_TOO_LARGE.format(max_pixels))


def rgb(image: Image.Image) -> Image.Image:
    """Turn a loaded picture upright and into RGB, on white where it is transparent."""
    return _in_rgb(ImageOps.exif_transpose(image))


@contextmanager
def _named_errors() -> Iterator[None]:
    """Raise whatever Pillow raises as `UnreadableImage`, with its reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF and of large pictures: the checks here decide
            yield
    except UnreadableImage:
        raise
    except MissingOpener as missing:
        raise UnreadableImage(str(missing)) from None
    except Image.DecompressionBombError:
        raise UnreadableImage(_TOO_LARGE.format(MAX_PIXELS)) from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage("not an image") from None
    except Exception:  # a damaged file makes Pillow's decoders raise almost anything
        raise UnreadableImage("truncated or damaged image") from None


@_named_errors()
def _upright(data: bytes, shorter_side: int | None) -> Image.Image | None:
    """Decode a picture upright, at most in the size of the file; None where the file can stay as it is."""
    with opened(data) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(_TOO_LARGE.format(MAX_PIXELS))
        shrink = shorter_side is not None and min(image.size) > shorter_side
        tagged = image.format != "JPEG" or not _ORIENTED_BY.isdisjoint(image.info)
        upright = not tagged or image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
        if image.format == "JPEG" and image.mode == "RGB" and upright and not shrink:
            image.load()  # a truncated file raises here
            return None
        if shrink and shorter_side is not None:
            image.draft(None, (2 * shorter_side, 2 * shorter_side))  # JPEG decodes smaller, never below twice the goal
        image.load()
        return ImageOps.exif_transpose(image)


def _shrunk(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    width, height = size
    scale = shorter_side / min(width, height)
    return max(round(width * scale), shorter_side), max(round(height * scale), shorter_side)


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion clips instead of scaling
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
