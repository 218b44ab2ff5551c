"""The datasets by name, each imported only when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Source


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
    """Read a dataset by name. A missing or superfluous option is an error that names it."""
    if name not in _READERS:
        raise UserError(f"there is no source {name!r}; choose one of {', '.join(_READERS)}")
    source = _READERS[name](options)
    if options.limit is None:
        return source
    return replace(source, splits={split: records[: options.limit] for split, records in source.splits.items()})


def _demo(options: SourceOptions) -> Source:
    from imgcap.shards.sources import demo

    if options.images or options.captions or options.splits:
        raise UserError("demo makes its own images and captions; leave out --images, --captions and --splits")
    return demo.read(options.raw_folder, images=options.limit, workers=options.workers)


def _flickr8k(options: SourceOptions) -> Source:
    from imgcap.shards.sources import flickr8k

    return flickr8k.read(_images(options), _one_caption_file(options), options.splits, options.seed)


def _flickr30k(options: SourceOptions) -> Source:
    from imgcap.shards.sources import flickr30k

    return flickr30k.read(_images(options), _one_caption_file(options), options.splits, options.seed)


def _coco(options: SourceOptions) -> Source:
    from imgcap.shards.sources import coco

    _refuse_splits("coco", options)
    return coco.read(_images(options), _captions(options), options.seed)


def _karpathy(options: SourceOptions) -> Source:
    from imgcap.shards.sources import karpathy

    _refuse_splits("karpathy", options)
    return karpathy.read(_images(options), _one_caption_file(options))


def _images(options: SourceOptions) -> Path:
    if options.images is None:
        raise UserError("this source needs the folder of its images; give it with --images")
    return options.images


def _captions(options: SourceOptions) -> tuple[Path, ...]:
    if not options.captions:
        raise UserError("this source needs its captions; give the file with --captions")
    missing = next((path for path in options.captions if not path.exists()), None)
    if missing:
        raise UserError(f"there is no {missing}; give the caption file with --captions")
    return options.captions


def _one_caption_file(options: SourceOptions) -> Path:
    if len(_captions(options)) > 1:
        raise UserError("this source reads one file of captions; give a single --captions (coco takes several)")
    return options.captions[0]


def _refuse_splits(name: str, options: SourceOptions) -> None:
    if options.splits:
        raise UserError(f"{name} has its own splits; leave out --splits")


_READERS: dict[str, Callable[[SourceOptions], Source]] = {
    "demo": _demo,
    "flickr8k": _flickr8k,
    "flickr30k": _flickr30k,
    "coco": _coco,
    "karpathy": _karpathy,
}
SOURCE_NAMES = tuple(_READERS)
