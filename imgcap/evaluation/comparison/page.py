"""A comparison as one self-contained HTML page: scores with their intervals, and the images that changed most."""

from pathlib import Path

from imgcap.evaluation.comparison.bootstrap import Difference
from imgcap.evaluation.comparison.sides import Comparison
from imgcap.evaluation.table import SCALE
from imgcap.files.durable import write_whole
from imgcap.pictures.normalise import jpeg_of, within
from imgcap.pictures.opening import decode
from imgcap.pictures.pages import data_url, template
from imgcap.shards.reader import ShardReader

SHOWN = 12  # images of each direction
THUMBNAIL, QUALITY = 320, 82  # pixels of the longer side


def write_page(path: Path, comparison: Comparison) -> None:
    """Write a comparison's page, whole or not at all."""
    better, worse = comparison.most_changed(SHOWN)
    pictures = _pictures(comparison.reader, {*better, *worse}) if comparison.reader is not None else {}
    page = template("evaluation/comparison/page.html").render(
        sides={"a": comparison.a, "b": comparison.b},
        scored={"a": comparison.scored_a, "b": comparison.scored_b},
        references=comparison.references,
        names={image_id: comparison.names.get(image_id, f"image {image_id}") for image_id in comparison.references},
        scale=SCALE,
        differences=comparison.differences,
        by_programs=comparison.by_programs,
        not_computed=comparison.not_computed,
        bars={name: _bar(found) for name, found in comparison.differences.items()},
        better={"b": better, "a": worse},
        pictures=pictures,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)


def _bar(found: Difference) -> list[float]:
    """Low end, middle and high end of an interval, in percent of an axis of its own whose middle is no difference."""
    reach = max(abs(found.low), abs(found.high), abs(found.difference)) or 1.0
    return [50 + 48 * value / reach for value in (found.low, found.difference, found.high)]


def _pictures(reader: ShardReader, wanted: set[int]) -> dict[int, str]:
    """The thumbnail's data address of each wanted picture, by image id."""
    found = {}
    for i in range(len(reader)):
        if reader.read_text(i).image_id in wanted:
            sample = reader.read(i)
            small = within(decode(sample.jpeg), THUMBNAIL)
            found[sample.image_id] = data_url(jpeg_of(small, QUALITY))
    return found
