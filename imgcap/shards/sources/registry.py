"""The datasets that can be built by name, and the options that each takes."""

from dataclasses import dataclass, replace
from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Source
from imgcap.shards.sources import coco, demo, flickr, karpathy

SOURCE_NAMES = ("demo", "flickr8k", "flickr30k", "coco", "karpathy")


@dataclass(frozen=True)
class SourceOptions:
    """What a user can say of the raw data. `limit` is a number of images for each split (demo: for all together)."""

    images: Path | None = None
    captions: tuple[Path, ...] = ()
    splits: Path | None = None
    seed: int = 0
    limit: int | None = None
    raw_folder: Path = Path("shards/demo-raw")  # demo: where its images are rendered
    workers: int = 1


def read_source(name: str, options: SourceOptions) -> Source:
    """Read a dataset by name; `UserError` names a missing or superfluous option."""
    if name not in SOURCE_NAMES:
        raise UserError(f"there is no source {name!r}; choose one of {', '.join(SOURCE_NAMES)}")
    source = _read(name, options)
    if options.limit is None:
        return source
    return replace(source, splits={split: records[: options.limit] for split, records in source.splits.items()})


def _read(name: str, options: SourceOptions) -> Source:
    if name == "demo":
        if options.images or options.captions or options.splits:
            raise UserError("demo makes its own images and captions; leave out --images, --captions and --splits")
        return demo.read(options.raw_folder, options.limit, options.workers)
    if name in ("coco", "karpathy") and options.splits:
        raise UserError(f"{name} has its own splits; leave out --splits")
    if options.images is None:
        raise UserError("this source needs the folder of its images; give it with --images")
    if not options.captions:
        raise UserError("this source needs its captions; give the file with --captions")
    missing = next((path for path in options.captions if not path.exists()), None)
    if missing:
        raise UserError(f"there is no {missing}; give the caption file with --captions")
    if name == "coco":
        return coco.read(options.images, options.captions, options.seed)
    if len(options.captions) > 1:
        raise UserError("this source reads one file of captions; give a single --captions (coco takes several)")
    (captions,) = options.captions
    if name == "karpathy":
        return karpathy.read(options.images, captions)
    return flickr.read(name, options.images, captions, options.splits, options.seed)
