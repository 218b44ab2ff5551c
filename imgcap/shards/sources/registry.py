"""The datasets that can be built by name, and the options that each takes."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Source
from imgcap.shards.sources import coco, demo, flickr, karpathy, own
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.image_folder import copies, in_order
from imgcap.shards.sources.splits import Shares, in_seeded_order

SOURCE_NAMES = ("folder", "demo", "flickr8k", "flickr30k", "coco", "karpathy")


@dataclass(frozen=True)
class SourceOptions:
    """What a user can say of the raw data. `limit` is a number of images for each split (demo: for all together)."""

    path: Path | None = None  # folder: of pictures and captions, or a table of these
    layout: str | None = None  # folder: which it is, where that isn't recognised
    images: Path | None = None
    captions: tuple[Path, ...] = ()
    splits: Path | None = None
    columns: Columns = field(default_factory=Columns)  # of a table
    shares: Shares = field(default_factory=Shares)  # of val and test, where a seed cuts
    seed: int = 0
    limit: int | None = None
    raw_folder: Path = Path("shards/demo-raw")  # demo: where its images are rendered
    workers: int = 1
    name: str | None = None  # of the set, where it isn't to be the source's


def read_source(name: str, options: SourceOptions) -> Source:
    """Read a dataset by name; `UserError` names a missing or superfluous option."""
    if name not in SOURCE_NAMES:
        raise UserError(f"there is no source {name!r}; choose one of {', '.join(SOURCE_NAMES)}")
    source = _read(name, options)
    if options.shares != Shares() and not source.split_rule.startswith("by image"):
        source = _held_out_of_train(source, options.shares, options.seed)
    if options.name:
        source = replace(source, name=options.name)
    if options.limit is None:
        return source
    return replace(source, splits={split: records[: options.limit] for split, records in source.splits.items()})


def _read(name: str, options: SourceOptions) -> Source:
    if name == "folder":
        return _read_folder(options)
    if options.path or options.layout:
        raise UserError(f"{name} takes no PATH and no --layout; `imgcap build folder PATH` reads a folder of your own")
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
        return coco.read(options.images, options.captions, options.seed, options.shares)
    if len(options.captions) > 1:
        raise UserError("this source reads one file of captions; give a single --captions (coco takes several)")
    (captions,) = options.captions
    if name == "karpathy":
        return karpathy.read(options.images, captions)
    return flickr.read(name, options.images, captions, options.splits, options.seed, options.columns, options.shares)


def _read_folder(options: SourceOptions) -> Source:
    if options.captions:
        raise UserError(f"give {options.captions[0]} as PATH: imgcap build folder {options.captions[0]} --images DIR")
    if options.path is None:
        raise UserError(
            "this source needs a folder, or its table of captions: imgcap build folder PATH --out shards/NAME"
        )
    return own.read(
        options.path,
        options.images,
        options.layout,
        options.columns,
        options.splits,
        options.seed,
        options.shares,
    )


def _held_out_of_train(source: Source, shares: Shares, seed: int) -> Source:
    """Hold out of train what is asked for and isn't there; `UserError` where the data has such a split of its own."""
    splits, wanted = dict(source.splits), {"val": shares.val, "test": shares.test}
    asked = {split: share for split, share in wanted.items() if share}
    for split, share in asked.items():
        if source.splits.get(split):
            raise UserError(
                f"the data has a {split} split of its own ({source.split_rule}); leave out --{split} {share}"
            )
        train = splits.get("train", [])
        same = copies({str(record.image_id): record.path for record in train if record.inside is None})
        ranked = in_seeded_order((str(record.image_id) for record in train), seed, same)
        count = max(round(len(train) * share), 1)
        if len(train) <= count or len(ranked) < 2:
            raise UserError(f"train has {len(train)} images, too few to hold out --{split} {share}")
        held = set[str]()
        for group in ranked[:-1]:
            held |= set(group) if len(held) < count else set()
        splits[split] = [record for record in train if str(record.image_id) in held]
        splits["train"] = [record for record in train if str(record.image_id) not in held]
    told = ", ".join(f"{100 * share:g}% of train held out for {split}" for split, share in asked.items())
    rule = f"{source.split_rule}; {told}, seed {seed}" if asked else source.split_rule
    return replace(source, splits=in_order(splits), split_rule=rule)
