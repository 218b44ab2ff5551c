"""The sorts of pictures that are read, by the names of their files."""

import functools
import mimetypes

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif"),
)
_CAMERAS = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raw", ".psd")  # that mimetypes doesn't know


@functools.cache
def is_other_picture(suffix: str) -> bool:
    """Whether files of this suffix (`.svg`, `.cr2`) hold pictures of a sort that isn't read here."""
    kind = mimetypes.guess_type(f"name{suffix}")[0] or ""
    return suffix in _CAMERAS or (kind.startswith("image/") and suffix not in SUFFIXES)
