"""A comparison as one self-contained HTML page: scores with their intervals, and the images that changed most."""

import base64
import html
import io
from pathlib import Path

from PIL import Image, ImageOps

from imgcap.evaluation.comparison.bootstrap import Difference
from imgcap.evaluation.comparison.sides import Comparison
from imgcap.files.durable import write_whole
from imgcap.shards.reader import ShardReader

SHOWN = 12  # images of each direction
THUMBNAIL = 320  # pixels of the longer side
REFERENCES = 5  # shown of each image

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6b7480; --edge: #dfe3e8; --card: #fff; --paper: #f6f7f9;
        --a: #b4542b; --b: #1f7a5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #9aa3ad; --edge: #333a42; --card: #1d2126; --paper: #14171a;
          --a: #e0885f; --b: #5fc09b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 32px 24px 64px; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Naskh Arabic", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 12px; }
.a { color: var(--a); } .b { color: var(--b); } .soft { color: var(--soft); font-size: 13px; }
table { width: 100%; border-collapse: collapse; margin-top: 20px; background: var(--card);
        border: 1px solid var(--edge); font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; text-align: right; border-bottom: 1px solid var(--edge); }
th:first-child, td:first-child { text-align: left; }
th:last-child { text-align: center; } th { font-weight: 600; font-size: 13px; color: var(--soft); }
td.bar { width: 34%; min-width: 180px; } .sure { font-weight: 600; }
.axis { position: relative; height: 16px; } .axis i { position: absolute; display: block; }
.axis .zero { left: 50%; width: 1px; height: 16px; background: var(--soft); }
.axis .span { top: 6px; height: 4px; border-radius: 2px; background: var(--soft); }
.axis .span.a { background: var(--a); } .axis .span.b { background: var(--b); }
.axis .point { top: 3px; width: 2px; height: 10px; margin-left: -1px; background: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 16px; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; overflow: hidden; }
.card img { display: block; width: 100%; height: 200px; object-fit: contain; background: var(--paper); }
.card div { padding: 10px 14px 12px; } .card p { margin: 0 0 6px; }
.card p.caption { border-inline-start: 3px solid; padding-inline-start: 8px; }
.card p.caption span { color: var(--ink); } .card ul { margin: 6px 0 0; padding-inline-start: 18px; }
"""


def write_page(path: Path, comparison: Comparison) -> None:
    """Write the page, whole or not at all."""
    better, worse = comparison.most_changed(SHOWN)
    pictures = _thumbnails(comparison.reader, {*better, *worse}) if comparison.reader is not None else {}
    sections = [
        f'<h2>Where <span class="{side}">{side.upper()}</span> is better by the most</h2>\n<div class="cards">\n'
        + "\n".join(_card(comparison, image_id, pictures.get(image_id)) for image_id in images)
        + "\n</div>"
        for side, images in (("b", better), ("a", worse))
        if images
    ]
    same = [] if sections else ["<p>No image scores differently.</p>"]
    content = "\n".join([_head(comparison), _table(comparison.differences), *sections, *same])
    head = f'<meta charset="utf-8">\n<title>Two sets of captions</title>\n<style>{_STYLE}</style>'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f'<!doctype html>\n<html lang="en">\n{head}\n{content}\n</html>\n'.encode())


def _head(comparison: Comparison) -> str:
    signatures = [
        f'<p class="soft"><b class="{side}">{side.upper()}</b> '
        + html.escape(" · ".join(f"{name} {value}" for name, value in of.signature.items()))
        + "</p>"
        for side, of in (("a", comparison.a), ("b", comparison.b))
        if of.signature
    ]
    names = [
        f'<bdi class="{side}">{html.escape(of.name)}</bdi>' for side, of in (("a", comparison.a), ("b", comparison.b))
    ]
    return "\n".join(
        [f"<h1>{names[0]} and {names[1]}</h1>", f"<p>{len(comparison.references)} images.</p>", *signatures]
    )


def _table(differences: dict[str, Difference]) -> str:
    """Each metric's interval is drawn on an axis of its own, whose middle is no difference."""
    rows = []
    for name, found in differences.items():
        reach = max(abs(found.low), abs(found.high), abs(found.difference)) or 1.0
        low, point, high = (50 + 48 * value / reach for value in (found.low, found.difference, found.high))
        side = "" if found.covers_zero else "b" if found.difference > 0 else "a"
        bar = (
            f'<div class="axis"><i class="zero"></i><i class="span {side}" style="left:{low:.1f}%;'
            f'width:{high - low:.1f}%"></i><i class="point" style="left:{point:.1f}%"></i></div>'
        )
        rows.append(
            f"<tr><td>{name}</td><td>{100 * found.a:.2f}</td><td>{100 * found.b:.2f}</td>"
            f'<td class="{side and "sure"} {side}">{100 * found.difference:+.2f}</td>'
            f"<td>{100 * found.low:+.2f} … {100 * found.high:+.2f}</td>"
            f'<td>{100 * found.b_wins:.1f} %</td><td class="bar">{bar}</td></tr>'
        )
    return (
        '<table>\n<tr><th>metric</th><th class="a">A</th><th class="b">B</th><th>B − A</th><th>95 % interval</th>'
        "<th>B wins</th><th>A better · B better</th></tr>\n"
        + "\n".join(rows)
        + '\n</table>\n<p class="soft">In percent; CIDEr times 100. An interval that leaves out zero is coloured. '
        "Paired bootstrap over images.</p>"
    )


def _card(comparison: Comparison, image_id: int, picture: str | None) -> str:
    captions = []
    for letter, side, scored in (("a", comparison.a, comparison.scored_a), ("b", comparison.b, comparison.scored_b)):
        text, own = html.escape(side.captions[image_id]) or "(no words)", 100 * scored.images[image_id]["CIDEr"]
        score = f'<bdi class="soft">{own:.0f}</bdi>'
        captions.append(f'<p class="caption {letter}" dir="auto"><span>{text}</span> {score}</p>')
    written = comparison.references[image_id][:REFERENCES]
    references = "".join(f'<li dir="auto">{html.escape(text)}</li>' for text in written)
    told = f"<summary>image {image_id}, what people wrote</summary><ul>{references}</ul>"
    image = f'<img alt="image {image_id}" src="data:image/jpeg;base64,{picture}">\n' if picture else ""
    return f'<div class="card">{image}<div>{"".join(captions)}<details class="soft">{told}</details></div></div>'


def _thumbnails(reader: ShardReader, wanted: set[int]) -> dict[int, str]:
    """JPEGs in base64 by image id."""
    found = {}
    for i in range(len(reader)):
        image_id = reader.read_text(i).image_id
        if image_id in wanted:
            with Image.open(io.BytesIO(reader.read(i).jpeg)) as image:
                small = ImageOps.contain(image.convert("RGB"), (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            encoded = io.BytesIO()
            small.save(encoded, "JPEG", quality=82)
            found[image_id] = base64.b64encode(encoded.getvalue()).decode()
    return found
