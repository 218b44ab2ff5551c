"""Making any photo an RGB JPEG, upright and no larger than wanted. A JPEG that needs nothing keeps its bytes."""

import io

from PIL import Image

from imgcap.pictures.opening import named_errors, opened, orientation, rgb

_LONGEST = 65_500  # pixels of a side that a JPEG can have


def normalised_jpeg(data: bytes, shorter_side: int | None, quality: int) -> bytes:
    """Make a file's bytes those of an RGB JPEG, EXIF rotation applied, the shorter side at most `shorter_side` pixels.

    Never upscaled; transparent parts become white. The very bytes come back where nothing is to do. Raises
    `UnreadableImage` for what is no image, damaged or too large.
    """
    with named_errors(), opened(data) as image:
        shrink = shorter_side is not None and min(image.size) > shorter_side
        if image.format == "JPEG" and image.mode == "RGB" and not shrink and orientation(image) == 1:
            image.load()  # a truncated file raises here
            return data
        if shrink and shorter_side is not None:
            image.draft(None, (2 * shorter_side, 2 * shorter_side))  # JPEG decodes smaller, never below twice the goal
        picture = rgb(image)
    size = _fitting(picture.size, shorter_side)
    return jpeg_of(picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC), quality)


def jpeg_of(picture: Image.Image, quality: int) -> bytes:
    """Encode an RGB picture as the bytes of a JPEG file."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def within(picture: Image.Image, side: int) -> Image.Image:
    """Resize a picture until it just fits into a square, however long and thin it is."""
    longer = max(picture.size)
    size = max(round(side * picture.width / longer), 1), max(round(side * picture.height / longer), 1)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _fitting(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """Shrink a size until its shorter side is as wanted and a JPEG can have its longer one."""
    if shorter_side is not None and min(size) > shorter_side:
        scale = shorter_side / min(size)
        size = max(round(size[0] * scale), shorter_side), max(round(size[1] * scale), shorter_side)
    if max(size) > _LONGEST:
        scale = _LONGEST / max(size)
        size = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    return size
