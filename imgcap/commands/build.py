"""Turn captioned photos into a verified shard set.

    imgcap build folder my-photos --out shards/mine
    imgcap build folder captions.csv --images photos --caption-column description --val 0.1 --out shards/mine
    imgcap build demo --out shards/demo
    imgcap build flickr8k --images Flickr8k/Images --captions Flickr8k/captions.txt --splits Flickr8k \\
        --out shards/flickr8k --resize 256

`folder` is for photos of your own: it recognises how they are captioned, and says what it recognised (docs/own-data.md
shows the layouts). A build that was stopped finishes what is missing when it is run again. See shards/README.md.
"""

import argparse
import os
from pathlib import Path

from imgcap.commands.arguments import megabytes, parser_for, percent, positive, seed, share
from imgcap.errors import exits_cleanly
from imgcap.shards.builder import build
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.layouts import LAYOUTS
from imgcap.shards.sources.registry import SOURCE_NAMES, SourceOptions, read_source
from imgcap.shards.sources.splits import Shares
from imgcap.text.tokeniser import Tokeniser


@exits_cleanly
def main() -> None:
    arguments = _parser().parse_intermixed_args()
    options = SourceOptions(
        path=arguments.path,
        layout=arguments.layout,
        images=arguments.images,
        captions=tuple(arguments.captions),
        splits=arguments.splits,
        columns=Columns(
            arguments.image_column, tuple(arguments.caption_column), arguments.split_column, arguments.separator
        ),
        shares=Shares(arguments.val, arguments.test),
        seed=arguments.seed,
        limit=arguments.limit,
        raw_folder=arguments.out.with_name(arguments.out.name + "-raw"),
        workers=arguments.workers,
        name=arguments.name,
    )
    source = read_source(arguments.source, options)
    for note in source.notes:
        print(note, flush=True)
    how = ("language", "resize", "quality", "shard_mb", "workers", "force")
    settings = {name: getattr(arguments, name) for name in how}
    print(build(source, arguments.out, Tokeniser(arguments.language), **settings).summary(arguments.out))


def _parser() -> argparse.ArgumentParser:
    parser = parser_for(__doc__)
    parser.add_argument("source", choices=SOURCE_NAMES)
    parser.add_argument("path", type=Path, nargs="?", help="folder: of pictures with captions, or a table of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shard set")
    parser.add_argument("--name", help="of the set (default: the data set's, or that of the folder)")
    parser.add_argument("--images", type=Path, help="folder of the images (coco, karpathy: or of their subfolders)")
    parser.add_argument(
        "--captions", type=Path, nargs="+", default=[], help="caption file; coco: files or their folder"
    )
    parser.add_argument("--splits", type=Path, help="folder of split lists, or a Karpathy JSON file")
    layouts = "; ".join(f"{name}: {meaning}" for name, meaning in LAYOUTS.items())
    parser.add_argument("--layout", choices=tuple(LAYOUTS), help=f"of a folder (default: recognised). {layouts}")
    parser.add_argument("--image-column", metavar="NAME", help="of a table (without a header: its number)")
    parser.add_argument("--caption-column", metavar="NAME", nargs="+", default=[], help="of a table, one or several")
    parser.add_argument("--split-column", metavar="NAME", help="of a table; none: it has no such column")
    parser.add_argument("--separator", help="of a table: tab, pipe, comma, semicolon, or another character")
    held = "share of the images to hold out where the data says none, by a seed (default 0.05; folder: 0.1)"
    parser.add_argument("--val", type=share, help=held)
    parser.add_argument("--test", type=share, help="likewise; 0: none")
    parser.add_argument("--resize", type=positive, help="pixels of the shorter side; larger images are shrunk to it")
    parser.add_argument("--quality", type=percent, default=90, help="of JPEGs that are encoded anew (default 90)")
    parser.add_argument("--shard-mb", type=megabytes, default=64.0, help="size of a shard at most, in MB (default 64)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--limit", type=positive, help="take the first N images of each split (demo: N in all)")
    parser.add_argument("--seed", type=seed, default=0, help="of the splits, where the dataset has none of its own")
    parser.add_argument("--language", default="en", help="of the captions, as spaCy names it (default en)")
    parser.add_argument("--force", action="store_true", help="build again what is there")
    return parser
