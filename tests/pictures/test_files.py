"""Pictures found in folders, and what is left out of them."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcap.pictures.files import find_pictures
from imgcap.pictures.opening import open_picture

Photo = Callable[..., Path]


def test_folders_behind_links_are_searched_once_and_hidden_ones_are_not(photo: Photo, tmp_path: Path) -> None:
    inside = photo(tmp_path / "elsewhere" / "a.jfif", format="JPEG")
    photo(tmp_path / "photos" / ".thumbnails" / "b.jpg")
    photo(tmp_path / "photos" / "._c.jpg")
    (tmp_path / "photos" / "linked").symlink_to(inside.parent)
    (tmp_path / "photos" / "back").symlink_to(tmp_path / "photos")
    assert find_pictures([tmp_path / "photos"]) == [tmp_path / "photos" / "linked" / "a.jfif"]


def test_a_pipe_in_a_folder_is_no_file_and_a_link_that_leads_nowhere_is_one(photo: Photo, tmp_path: Path) -> None:
    """A pipe that nobody writes to would be read for ever; the link can be told with its reason."""
    linked = tmp_path / "linked.jpg"
    linked.symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert find_pictures([tmp_path]) == [linked]


def test_pictures_that_are_not_read_are_counted(
    photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "a.jpg")
    for name in ("b.svg", "c.SVG", "d.cr2", "captions.txt"):
        (tmp_path / name).touch()
    assert find_pictures([tmp_path]) == [tmp_path / "a.jpg"]
    assert capsys.readouterr().err == f"left out of {tmp_path}: 2 × .svg, 1 × .cr2\n"


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_a_turned_picture_of_a_phone_is_upright(photo: Photo, tmp_path: Path, form: str) -> None:
    upright = Image.open(photo(tmp_path / "a.jpg", 64, 32))
    turned, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    if form == "HEIF":  # its plugin for Pillow writes the tag, not the rotation
        pytest.importorskip("pillow_heif").from_pillow(turned).save(out, exif=exif.tobytes(), quality=95)
    else:
        turned.save(out, form, exif=exif, quality=95)
    (tmp_path / "a.any").write_bytes(out.getvalue())
    opened = open_picture(tmp_path / "a.any", 32)
    assert opened.size == (64, 32) and opened.mode == "RGB"
    assert np.abs(np.asarray(opened, dtype=float) - np.asarray(upright, dtype=float)).mean() < 6
