"""Flickr8k and Flickr30k: a caption table, a folder of images, and lists or a seed for the splits.

Flickr8k (Hodosh et al., 2013) has 8,000 photos with five captions each, in Kaggle's `captions.txt` or the original
`Flickr8k.token.txt`, and standard lists of 6,000, 1,000 (`dev`, called `val` here) and 1,000.

Flickr30k (Young et al., 2014) has 31,783 photos with five captions each, in Kaggle's `results.csv` (pipes),
`captions.csv` (image,caption_number,caption,id) or the original `results_20130124.token`. There is no official split:
lists, a Karpathy file or a column of the table give one, else a seed cuts by image.
"""

from pathlib import Path

from imgcap.errors import UserError
from imgcap.shards.source import Source
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.image_folder import ImageFiles, records_from
from imgcap.shards.sources.splits import Shares, places_in, read_splits, split_lists
from imgcap.shards.sources.table import read_table


def read(
    name: str, images: Path, captions: Path, splits: Path | None, seed: int, columns: Columns, shares: Shares
) -> Source:
    """Read Flickr8k or Flickr30k. `splits` is a folder of train.txt, val.txt, test.txt or a Karpathy JSON file.

    Without it, the table's column of splits counts, then lists beside the caption file, and without those the seed
    cuts. Some of the lists may be missing: images in none of those that are there are skipped. Raises `UserError` for
    splits of another dataset.
    """
    table = read_table(captions, columns)
    if splits is None and not table.has_splits and split_lists(captions.parent):
        splits = captions.parent
    if splits is not None:
        split_of = places_in(read_splits(splits), table.captions)
        rule = ", ".join(path.name for path in split_lists(splits)) if splits.is_dir() else splits.name
        if not any(image in split_of for image in table.captions):
            raise UserError(f"the splits in {splits} name no image of {captions}; give those of this dataset")
    elif table.has_splits:
        split_of, rule = table.split_of, f"column {table.chosen.used[-1]} of {captions.name}"
    else:
        split_of, rule = shares.cut(table.captions, seed), shares.rule(seed)
    files = ImageFiles(images)
    records, skipped = records_from(table.captions, files, split_of)
    unused = [*table.chosen.unused, *([table.chosen.used[-1]] if splits and table.has_splits else [])]
    notes = (*(f"column {column!r} of {captions.name} is not used" for column in unused), *files.notes)
    return Source(name, records, table.skipped + skipped, origin=captions.name, split_rule=rule, notes=notes)
