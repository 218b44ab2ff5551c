"""The sorts of pictures that can be opened: Pillow's own, and HEIC and AVIF through what is installed for them."""

import functools
import importlib
import io
import mimetypes

from PIL import Image, features

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif"),
)
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_CAMERAS = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raw", ".psd")  # that mimetypes doesn't know


class MissingOpener(OSError):
    """A picture is of a sort that an optional package opens; the message is a reason that says which."""


def opened(data: bytes) -> Image.Image:
    """Open a file's bytes, undecoded, in a format that is read here; errors are Pillow's, or `MissingOpener`."""
    return Image.open(io.BytesIO(data), formats=_formats_of(data))


@functools.cache
def is_other_picture(suffix: str) -> bool:
    """Whether files of this suffix (`.svg`, `.cr2`) hold pictures of a sort that isn't read here."""
    kind = mimetypes.guess_type(f"name{suffix}")[0] or ""
    return suffix in _CAMERAS or (kind.startswith("image/") and suffix not in SUFFIXES)


def _formats_of(data: bytes) -> tuple[str, ...]:
    """Name the formats to try: those of Pillow, or what the brand in the header of an ISO media file asks for."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _AVIF_BRANDS:
        if not features.check("avif"):
            raise MissingOpener("an AVIF picture, which needs Pillow 11.3 or newer: pip install -U pillow")
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
        raise MissingOpener("a HEIC picture, which needs one more package: pip install 'imgcap[heic]'") from None
