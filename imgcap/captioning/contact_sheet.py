"""A page to look results over: one HTML file that holds its thumbnails, at most `SHOWN`, spread over the input."""

import base64
import html
import io
from pathlib import Path

from PIL import Image, ImageOps

from imgcap.captioning.inputs import Inputs
from imgcap.captioning.journal import read_rows
from imgcap.files.durable import write_whole

SHOWN = 200
SIDE, QUALITY = 240, 70  # pixels; about 10 KB a thumbnail

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 2rem; font: 16px/1.4 system-ui, sans-serif; color: #1b1f24; background: #fff; }}
header {{ margin-bottom: 1.5rem; color: #6b7480; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({side}px, 1fr)); gap: 1.6rem 1.2rem; }}
figure {{ margin: 0; content-visibility: auto; contain-intrinsic-size: {side}px {side}px; }}
img {{ max-width: 100%; height: auto; display: block; border: 1px solid #d5dae1; }}
figcaption {{ margin-top: .5rem; font-weight: 600; }}
small {{ color: #6b7480; overflow-wrap: anywhere; }}
</style>
<header>{title}: {shown} of {total}</header>
<main>
{figures}
</main>
"""
_FIGURE = (
    '<figure><img loading="lazy" decoding="async" alt="" width="{width}" height="{height}" src="{source}">'
    '<figcaption dir="auto">{caption}</figcaption><small dir="auto">{name}</small></figure>'
)


def write_contact_sheet(page: Path, out: Path, inputs: Inputs) -> None:
    """Show what a finished `out` says of its `inputs`. Captions stand in the direction of their own writing."""
    rows = {_name(row["image"], row.get("image_id")): row["caption"] for row in read_rows(out)}
    shown = min(SHOWN, len(inputs))
    figures = []
    for number in range(shown):
        item = inputs.read(number * len(inputs) // shown, SIDE)
        name = _name(item.columns["image"], item.columns.get("image_id"))
        if item.picture is not None and name in rows:
            figures.append(_figure(item.picture, name, rows[name]))
    page.parent.mkdir(parents=True, exist_ok=True)
    title = html.escape(out.name)
    text = _PAGE.format(title=title, side=SIDE, shown=len(figures), total=len(rows), figures="\n".join(figures))
    write_whole(page, text.encode("utf-8", "backslashreplace"))


def _name(image: str, image_id: object) -> str:
    return image if image_id is None else f"{image} ({image_id})"


def _figure(picture: Image.Image, name: str, caption: str) -> str:
    thumbnail = ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    thumbnail.save(jpeg, "JPEG", quality=QUALITY)
    return _FIGURE.format(
        width=thumbnail.width,
        height=thumbnail.height,
        source="data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode(),
        caption=html.escape(caption or "(no words)"),
        name=html.escape(name),
    )
