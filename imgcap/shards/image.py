"""Any photo to an RGB JPEG, upright and no larger than wanted. A JPEG that needs nothing keeps its bytes."""

import io
import warnings

from PIL import Image, ImageOps

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485  # Pillow's bound against decompression bombs
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_EXIF_ORIENTATION = 0x0112
_TRANSPARENT_MODES = ("RGBA", "RGBa", "LA", "La", "PA")


class UnreadableImage(Exception):
    """An image that cannot be in a shard set; the message is the reason."""


def normalised_jpeg(data: bytes, shorter_side: int | None, quality: int) -> bytes:
    """JPEG bytes in RGB, EXIF rotation applied, the shorter side at most `shorter_side` pixels.

    Never upscaled; transparent parts become white. The very bytes come back where nothing is to do.
    """
    if not data:
        raise UnreadableImage("zero bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # odd EXIF: the pixels decide
        try:
            return _normalised(data, shorter_side, quality)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
        except Image.UnidentifiedImageError:
            raise UnreadableImage("not an image") from None
        except (OSError, SyntaxError, ValueError, EOFError, OverflowError):
            # Pillow's decoders raise any of these on a file that ends early or contradicts itself.
            raise UnreadableImage("truncated or damaged image") from None


def _normalised(data: bytes, shorter_side: int | None, quality: int) -> bytes:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels")
        shrink = shorter_side is not None and min(image.size) > shorter_side
        upright = image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
        if image.format == "JPEG" and image.mode == "RGB" and upright and not shrink:
            image.load()  # a truncated file raises here
            return data
        if shrink and shorter_side is not None:
            image.draft(None, (2 * shorter_side, 2 * shorter_side))  # JPEG decodes smaller, never below twice the goal
        image.load()
        picture = ImageOps.exif_transpose(image)
        picture = _in_rgb(picture)
        if shrink and shorter_side is not None:
            picture = picture.resize(_shrunk(picture.size, shorter_side), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        return out.getvalue()


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
