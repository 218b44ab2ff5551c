"""A few picture files: their captions, and drawings of where each word looked."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgcap.captioning.batch import Captioned, caption_pictures
from imgcap.config.decoding import DecodeOptions
from imgcap.decoding.generate import check_room
from imgcap.errors import UserError
from imgcap.models.trained import LoadedCaptioner
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.opening import UnreadableImage, on_one_line, open_picture

_KEY, _VALUE = "Software", "imgcap"  # in a drawing's file: it may be drawn anew
_MARK = PngInfo()
_MARK.add_text(_KEY, _VALUE)
LONGEST = 240  # bytes of a drawing's name, without number and suffix; a letter has four at most


def caption_files(
    loaded: LoadedCaptioner,
    paths: list[Path],
    options: DecodeOptions,
    batch: int,
    others: Sequence[LoadedCaptioner] = (),
    drawings: Path | None = None,
    capital: bool = False,
) -> Iterator[tuple[Path, Captioned]]:
    """Caption `batch` pictures at a time, by an ensemble with `others`; with `drawings` each gets a PNG there.

    A picture that can't be read is named on stderr and left out. Raises `UserError` before anything is read or
    written where the options leave no caption, and for drawings of a decoder that doesn't attend; then where the
    vocabularies differ.
    """
    check_room(options, loaded.vocabulary, loaded.config.data.max_tokens)
    decoder = loaded.config.model.decoder
    if drawings is not None:
        if not decoder.attends:
            raise UserError(f"--attention needs a decoder that attends; this one is model.decoder.type={decoder.type}")
        drawings.mkdir(parents=True, exist_ok=True)
        targets = _drawing_names(paths, drawings)
    size = max(member.config.data.image_size for member in (loaded, *others))
    for pictures in _readable(paths, size, batch):
        found = caption_pictures(loaded, list(pictures.values()), options, drawings is not None, others, capital)
        for (path, picture), captioned in zip(pictures.items(), found, strict=True):
            if drawings is not None:
                _draw(loaded, path, picture, captioned).save(targets[path], pnginfo=_MARK)
            yield path, captioned


def _readable(paths: list[Path], size: int, batch: int) -> Iterator[dict[Path, Image.Image]]:
    pictures: dict[Path, Image.Image] = {}
    for path in paths:
        try:
            pictures[path] = open_picture(path, size)
        except UnreadableImage as reason:
            print(f"skipped: {on_one_line(path)}: {reason}", file=sys.stderr, flush=True)
        if len(pictures) == batch:
            yield pictures
            pictures = {}
    if pictures:
        yield pictures


def _drawing_names(paths: list[Path], folder: Path) -> dict[Path, Path]:
    """A file for each picture; where its name is taken, by another or by a file there, it gets -2, -3 and so on.

    What an earlier call has drawn there is drawn anew. Names that differ in capitals alone count as one: they are one
    file on some systems.
    """
    here = {parent for parent in {path.parent for path in paths} if parent.resolve() == folder.resolve()}
    taken = {path.name.casefold() for path in paths if path.parent in here}
    last: Counter[str] = Counter()  # number of each stem
    names: dict[Path, Path] = {}
    for path in paths:
        stem = path.stem if len(os.fsencode(path.stem)) <= LONGEST else path.stem[: LONGEST // 4]
        key = stem.casefold()
        name = f"{stem}.png"
        while name.casefold() in taken or _is_strange(folder / name):
            last[key] = max(last[key], 1) + 1
            name = f"{stem}-{last[key]}.png"
        taken.add(name.casefold())
        names[path] = folder / name
    return names


def _is_strange(path: Path) -> bool:
    """Whether a file is there that is no drawing of ours."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(_KEY) != _VALUE
    except FileNotFoundError:
        return False
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True


def _draw(loaded: LoadedCaptioner, path: Path, picture: Image.Image, captioned: Captioned) -> Image.Image:
    assert captioned.attention_LP is not None  # it was asked for, and the decoder attends
    data = loaded.config.data
    grid = loaded.model.encoder.grid(data.image_size)
    words, caption = captioned.words, captioned.caption
    return draw_attention(picture, words, captioned.attention_LP, grid, caption, path.name, data.language)
