"""What Flickr8k and Flickr30k share: a caption table, a folder of images, lists or a seed for the splits."""

from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Source
from imgcap.shards.sources.image_folder import records_from
from imgcap.shards.sources.splits import read_splits, seeded_rule, seeded_splits, split_lists
from imgcap.shards.sources.table import read_table


def read_flickr(name: str, images: Path, captions: Path, splits: Path | None, seed: int) -> Source:
    """Read a caption table. Without `splits`, lists beside the caption file count; without those, the seed cuts."""
    table = read_table(captions)
    if splits is None and split_lists(captions.parent):
        splits = captions.parent
    if splits is None:
        split_of, rule = seeded_splits(table.captions, seed), seeded_rule(seed)
    else:
        split_of = read_splits(splits)
        rule = ", ".join(path.name for path in split_lists(splits)) if splits.is_dir() else splits.name
        if not any(image in split_of for image in table.captions):
            raise UserError(f"the splits in {splits} name no image of {captions}; give those of this dataset")
    records, skipped = records_from(table.captions, images, split_of)
    return Source(name, records, table.skipped + skipped, origin=captions.name, split_rule=rule)
