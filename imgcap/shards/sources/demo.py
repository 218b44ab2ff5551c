"""The demo data: generated scenes, drawn here, so that training can be tried without a download."""

from collections.abc import Sequence
from pathlib import Path

from imgcap.errors import UserError
from imgcap.files.durable import write_whole
from imgcap.pictures.normalise import jpeg_of
from imgcap.ranks.progress import Progress
from imgcap.shards.parallel import Workers
from imgcap.shards.scenes.captions import captions_of
from imgcap.shards.scenes.rendering import DRAWING, render
from imgcap.shards.scenes.scene import SPLITS, indices, scene_at
from imgcap.shards.source import Source
from imgcap.types import Record

IMAGES = {"train": 6000, "val": 200, "test": 300}
QUALITY = 90
_WORTH_PROCESSES = 500  # pictures; fewer are drawn before another process has started


def read(raw_folder: Path, images: int | None = None, workers: int = 1) -> Source:
    """Draw the JPEGs that `raw_folder` lacks and list them all; an image_id is its scene's index.

    `images` is their number over all splits, shared out as in IMAGES; a larger set begins with the smaller. Raises
    `UserError` where they are fewer than the splits.
    """
    sizes = _sizes(images)
    raw_folder.mkdir(parents=True, exist_ok=True)
    _clear_other_drawing(raw_folder)
    splits = {split: [_record(raw_folder, index) for index in indices(split, sizes[split])] for split in SPLITS}
    _draw_missing([record for records in splits.values() for record in records], workers)
    return Source("demo", splits, [], f"generated scenes, drawing {DRAWING}", split_rule="held-out combinations")


def _sizes(images: int | None) -> dict[str, int]:
    if images is None:
        return dict(IMAGES)
    if images < len(SPLITS):
        raise UserError(f"{images} images are too few for the demo's {len(SPLITS)} splits; give at least {len(SPLITS)}")
    sizes = {split: max(images * IMAGES[split] // sum(IMAGES.values()), 1) for split in ("val", "test")}
    return {"train": images - sum(sizes.values()), **sizes}


def _record(raw_folder: Path, index: int) -> Record:
    file_name = f"scene-{index:07d}.jpg"
    return Record(index, file_name, raw_folder / file_name, tuple(captions_of(scene_at(index))))


def _clear_other_drawing(raw_folder: Path) -> None:
    """Remove pictures that another version of the drawing left: they don't show what their captions say."""
    marker = raw_folder / "drawing.txt"
    if not marker.exists() or marker.read_text() != str(DRAWING):
        for picture in raw_folder.glob("scene-*.jpg"):
            picture.unlink()
        marker.write_text(str(DRAWING))


def _draw_missing(records: Sequence[Record], workers: int) -> None:
    jobs = [(record.image_id, record.path) for record in records if not record.path.exists()]
    processes = workers if len(jobs) > _WORTH_PROCESSES else 1
    with Workers(_draw, processes) as pool, Progress(len(jobs), "draw") as progress:
        for _ in pool.map(jobs):
            progress.advance()


def _draw(job: tuple[int, Path]) -> None:
    """Draw a scene, by its index, into a JPEG file."""
    index, path = job
    write_whole(path, jpeg_of(render(scene_at(index)), QUALITY), durable=False)
