"""A page to look results over: one HTML file that holds its thumbnails, at most `SHOWN`, spread over the input."""

from pathlib import Path

from imgcap.captioning.inputs import Inputs
from imgcap.captioning.journal import read_rows
from imgcap.files.durable import write_whole
from imgcap.pictures.normalise import jpeg_of, within
from imgcap.pictures.pages import data_url, template

SHOWN = 200
SIDE, QUALITY = 240, 70  # pixels; about 10 KB a thumbnail


def write_contact_sheet(page: Path, out: Path, inputs: Inputs, model: str) -> None:
    """Show what a finished `out` of a `model` says of its `inputs`. Captions stand as they are written."""
    rows = {_name(row["image"], row.get("image_id")): row["caption"] for row in read_rows(out)}
    shown = min(SHOWN, len(inputs))
    figures = []
    for number in range(shown):
        item = inputs.read(number * len(inputs) // shown, SIDE)
        name = _name(item.columns["image"], item.columns.get("image_id"))
        if item.picture is not None and name in rows:
            thumbnail = within(item.picture, SIDE)
            figures.append((thumbnail.size, data_url(jpeg_of(thumbnail, QUALITY)), rows[name], name))
    page.parent.mkdir(parents=True, exist_ok=True)
    empty = template("captioning/contact_sheet.html")
    filled = empty.render(title=out.name, model=model, side=SIDE, total=len(rows), figures=figures)
    write_whole(page, filled.encode("utf-8", "backslashreplace"))


def _name(image: str, image_id: object) -> str:
    """Name a picture, its bytes that are no text as escapes: so a CSV file has them."""
    image = image.encode("utf-8", "backslashreplace").decode()
    return image if image_id is None else f"{image} ({image_id})"
