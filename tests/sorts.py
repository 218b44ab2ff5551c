"""Pictures of every sort that people have, each with what it shows or with the reason why it can't be opened."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

TRUNCATED, NO_IMAGE = "truncated or damaged image", "not an image"
ORIENTATION = 0x0112
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@dataclass(frozen=True)
class Sort:
    """A file's bytes, and either the upright RGB picture that it shows or the reason why it shows none."""

    data: Callable[[], bytes]
    shows: Callable[[], Image.Image] | None = None
    reason: str = ""


def photo(size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def grey() -> np.ndarray:
    return np.asarray(photo().convert("L"))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def plain(form: str, mode: str = "RGB", size: tuple[int, int] = (60, 40), **options: object) -> Sort:
    """A picture of another mode, which shows what Pillow turns it into."""

    def picture() -> Image.Image:
        return photo(size).convert(mode)

    return Sort(lambda: saved(picture(), form, **options), lambda: picture().convert("RGB"))


def of_array(values: Callable[[], np.ndarray], form: str, reason: str = "", **options: object) -> Sort:
    """Grey numbers of more than 8 bits, which show the photo in grey."""
    shows = None if reason else lambda: Image.fromarray(grey()).convert("RGB")
    return Sort(lambda: saved(Image.fromarray(values()), form, **options), shows, reason)


def flat(data: Callable[[], bytes], colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Sort:
    return Sort(data, lambda: Image.new("RGB", size, colour))


def even(values: int, form: str, shade: int, **options: object) -> Sort:
    """A picture of one grey, in 16 bits."""
    image = Image.fromarray(np.full((30, 40), values, np.uint16))
    return flat(lambda: saved(image, form, **options), (shade, shade, shade))


def half(clear: Callable[[], Image.Image], form: str, **options: object) -> Sort:
    """A red picture whose left half is transparent, so that it is white."""

    def shows() -> Image.Image:
        image = Image.new("RGB", (40, 30), (200, 0, 0))
        image.paste((255, 255, 255), (0, 0, 20, 30))
        return image

    return Sort(lambda: saved(clear(), form, **options), shows)


def halves(mode: str, left: object, right: object) -> Image.Image:
    image = Image.new(mode, (40, 30), right)
    image.paste(left, (0, 0, 20, 30))
    return image


def big_endian() -> Image.Image:
    return Image.frombytes("I;16B", (60, 40), (grey().astype(">u2") * 257).tobytes())


def two_colours() -> Image.Image:
    image = halves("P", 1, 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    return image


def turned(number: int, form: str, **options: object) -> Sort:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return Sort(lambda: saved(photo().transpose(UNDO[number]), form, exif=exif, **options), photo)


def cut(whole: Sort, rest: Callable[[int], int], reason: str = TRUNCATED) -> Sort:
    def data() -> bytes:
        return whole.data()[: rest(len(whole.data()))]

    return Sort(data, None if reason else whole.shows, reason)


def heic(image: Image.Image, **options: object) -> bytes:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95, **options)
    return out.getvalue()


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (60, 40), colour) for colour in ("black", "white")]}
BROKEN = {"exif": b"Exif\x00\x00garbagegarbage"}
LONG_CUT = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x12\x00\x03"  # ends within its first tag
FINE = {"quality": 95}
OUT_OF_RANGE = "grey is 0 to 65,535, or floats from 0 to 1, and this goes from "
SORTS: dict[str, Sort] = {
    "plain.jpg": plain("JPEG"),
    "large.jpg": plain("JPEG", size=(900, 600)),
    "progressive.jpg": plain("JPEG", progressive=True),
    "a.jfif": plain("JPEG"),
    "grey.jpg": plain("JPEG", "L"),
    "cmyk.jpg": plain("JPEG", "CMYK", **FINE),
    "commented.jpg": plain("JPEG", comment=b"a comment"),
    "profiled.png": plain("PNG", icc_profile=b"no profile at all"),
    **{f"plain.{form.lower()}": plain(form) for form in ("PNG", "BMP", "GIF", "TIFF", "WEBP")},
    "large.png": plain("PNG", size=(900, 600)),
    "grey.png": plain("PNG", "L"),
    "black_and_white.png": plain("PNG", "1"),
    "black_and_white.tif": plain("TIFF", "1", compression="group4"),
    "cmyk.tiff": plain("TIFF", "CMYK"),
    "ycbcr.tiff": plain("TIFF", "YCbCr", compression="jpeg"),
    "lab.tiff": flat(lambda: saved(Image.new("LAB", (40, 30), (150, 128, 128)), "TIFF"), (142, 142, 142)),
    "palette.png": plain("PNG", "P"),
    "transparent_palette.png": half(two_colours, "PNG", transparency=1),
    "alphas_of_palette.png": half(two_colours, "PNG", transparency=b"\xff\x00"),
    "transparent.gif": half(two_colours, "GIF", transparency=1),
    "transparent_colour.png": half(lambda: halves("RGB", (0, 200, 0), (200, 0, 0)), "PNG", transparency=(0, 200, 0)),
    "transparent_grey.png": flat(lambda: saved(Image.new("L", (40, 30), 7), "PNG", transparency=7), (255, 255, 255)),
    "transparent_grey16.png": even(20_000, "PNG", 255, transparency=20_000),
    "rgba.png": half(lambda: halves("RGBA", (0, 200, 0, 0), (200, 0, 0, 255)), "PNG"),
    "rgba.webp": half(lambda: halves("RGBA", (0, 200, 0, 0), (200, 0, 0, 255)), "WEBP", lossless=True),
    "rgba.tiff": half(lambda: halves("RGBA", (0, 200, 0, 0), (200, 0, 0, 255)), "TIFF"),
    "la.png": flat(lambda: saved(Image.new("LA", (40, 30), (100, 0)), "PNG"), (255, 255, 255)),
    "of_16_bits.png": of_array(lambda: grey().astype(np.uint16) * 257, "PNG"),
    "of_16_bits.tiff": of_array(lambda: grey().astype(np.uint16) * 257, "TIFF"),
    "big_endian.tiff": Sort(lambda: saved(big_endian(), "TIFF"), lambda: photo().convert("L").convert("RGB")),
    "20000_of_65535.png": even(20_000, "PNG", 78),
    "of_12_bits_in_16.png": even(4000, "PNG", 250),
    "of_10_bits_in_16.tiff": even(1000, "TIFF", 250),
    "of_32_bits.tiff": of_array(lambda: grey().astype(np.int32) * 257, "TIFF"),
    "beyond_16_bits.tiff": of_array(lambda: grey().astype(np.int32) * 2**20, "TIFF", OUT_OF_RANGE),
    "of_floats.tiff": of_array(lambda: grey().astype(np.float32) / 255, "TIFF"),
    "floats_to_255.tiff": of_array(lambda: grey().astype(np.float32), "TIFF"),
    "negative_floats.tiff": of_array(lambda: grey().astype(np.float32) - 300, "TIFF", OUT_OF_RANGE),
    "not_a_number.tiff": of_array(lambda: np.full((8, 8), np.nan, np.float32), "TIFF", OUT_OF_RANGE + "nan to nan"),
    "one_pixel.png": flat(lambda: saved(Image.new("RGB", (1, 1), (9, 90, 200)), "PNG"), (9, 90, 200)),
    "one_pixel.jpg": flat(lambda: saved(Image.new("RGB", (1, 1), (90, 90, 90)), "JPEG"), (90, 90, 90)),
    "long.png": flat(lambda: saved(Image.new("RGB", (4, 70_000), (200, 0, 0)), "PNG"), (200, 0, 0)),
    "animated.gif": plain("GIF", **FRAMES),
    "animated.png": plain("PNG", **FRAMES),
    "animated.webp": plain("WEBP", lossless=True, **FRAMES),
    "two_in_one.mpo.jpg": plain("MPO", **FRAMES, **FINE),
    **{f"turned_{number}.jpg": turned(number, "JPEG", **FINE) for number in UNDO},
    "turned.png": turned(6, "PNG"),
    "turned.webp": turned(8, "WEBP", lossless=True),
    "turned.tiff": turned(5, "TIFF"),
    "turned_by_xmp.jpg": Sort(lambda: saved(photo().transpose(UNDO[6]), "JPEG", xmp=XMP, **FINE), photo),
    **{f"broken_exif.{form.lower()}": plain(form, **BROKEN) for form in ("PNG", "WEBP", "JPEG")},
    "cut_exif.jpg": plain("JPEG", exif=LONG_CUT),
    **{f"cut_by_2.{form.lower()}": cut(plain(form), lambda size: size - 2) for form in ("JPEG", "WEBP", "TIFF", "BMP")},
    **{f"end_cut.{form.lower()}": cut(plain(form), lambda size: size - 2, "") for form in ("PNG", "GIF")},
    **{f"half.{form.lower()}": cut(plain(form), lambda size: size // 2) for form in ("JPEG", "PNG", "GIF", "BMP")},
    "cut_large.jpg": cut(plain("JPEG", size=(900, 600)), lambda size: size // 2),
    "empty.jpg": Sort(lambda: b"", reason="zero bytes"),
    "text.jpg": Sort(lambda: b"no picture\n" * 100, reason=NO_IMAGE),
    "page.png": Sort(lambda: b"<!DOCTYPE html><html><body>404</body></html>", reason=NO_IMAGE),
    "bomb.png": Sort(lambda: saved(Image.new("1", (9_500, 9_500)), "PNG"), reason="more than 89,478,485 pixels"),
    "tab\tand\nline feed.png": plain("PNG"),
    "caf\udce9.png": plain("PNG"),
    " of spaces .png": plain("PNG"),
}  # fmt: skip
if features.check("avif"):
    SORTS["phone.avif"] = plain("AVIF", **FINE)
    SORTS["turned.avif"] = turned(6, "AVIF", **FINE)
    SORTS["cut.avif"] = cut(plain("AVIF"), lambda size: size // 2, NO_IMAGE)
if importlib.util.find_spec("pillow_heif"):
    EXIF = Image.Exif()
    EXIF[ORIENTATION] = 6
    SORTS["phone.heic"] = Sort(lambda: heic(photo()), photo)
    SORTS["turned.heic"] = Sort(lambda: heic(photo().transpose(UNDO[6]), exif=EXIF.tobytes()), photo)
    SORTS["cut.heic"] = cut(SORTS["phone.heic"], lambda size: size // 2)
