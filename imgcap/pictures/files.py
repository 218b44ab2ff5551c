"""Reading pictures of any sort that Pillow reads: found in folders, opened, decoded no larger than wanted."""

import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from imgcap.errors import UserError
from imgcap.pictures.normalise import UnreadableImage, normalised_jpeg, rgb

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_QUALITY = 95  # of what is no upright RGB JPEG already


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """List files as given, and the pictures in folders (by suffix, in subfolders too), sorted; each once.

    `UserError` for a path that isn't there and a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise UserError(f"there is no picture in {path}; name one that holds {', '.join(SUFFIXES)} files")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"there is no picture or folder {path}; check the name")
    return list(dict.fromkeys(found))


def open_picture(path: Path, size: int) -> Image.Image:
    """Open a file of any sort as an upright RGB picture, little larger than `size` needs, or raise UnreadableImage."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from None
    return picture_of(data, size)


def picture_of(data: bytes, size: int) -> Image.Image:
    """Open a file's bytes as an upright RGB picture, little larger than `size` needs, or raise UnreadableImage."""
    return decode(normalised_jpeg(data, None, _QUALITY), size)


def decode(jpeg: bytes, size: int) -> Image.Image:
    """Decode a JPEG to RGB, by its own power-of-two scaling where that still leaves twice `size` pixels."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("RGB", (2 * size, 2 * size))
    if image.mode != "RGB" or image.format != "JPEG" or "exif" in image.info:  # only in tars that others wrote
        return rgb(image)
    return image.convert("RGB")
