"""Turn a dataset into a verified shard set.

    imgcap build demo --out shards/demo
    imgcap build flickr8k --images Flickr8k/Images --captions Flickr8k/captions.txt --splits Flickr8k \\
        --out shards/flickr8k --resize 256

A build that was stopped finishes what is missing when it is run again. See shards/README.md.
"""

import os
from pathlib import Path

from imgcap.commands.arguments import megabytes, parser_for, percent, positive
from imgcap.errors import exits_cleanly
from imgcap.shards.builder import build
from imgcap.shards.sources.registry import SOURCE_NAMES, SourceOptions, read_source
from imgcap.text.tokeniser import Tokeniser


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("source", choices=SOURCE_NAMES)
    parser.add_argument("--out", type=Path, required=True, help="folder of the shard set")
    parser.add_argument("--images", type=Path, help="folder of the images (coco, karpathy: or of their subfolders)")
    parser.add_argument(
        "--captions", type=Path, nargs="+", default=[], help="caption file; coco: files or their folder"
    )
    parser.add_argument("--splits", type=Path, help="folder of split lists, or a Karpathy JSON file")
    parser.add_argument("--resize", type=positive, help="pixels of the shorter side; larger images are shrunk to it")
    parser.add_argument("--quality", type=percent, default=90, help="of JPEGs that are encoded anew (default 90)")
    parser.add_argument("--shard-mb", type=megabytes, default=64.0, help="size of a shard at most, in MB (default 64)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--limit", type=positive, help="take the first N images of each split (demo: N in all)")
    parser.add_argument("--seed", type=int, default=0, help="of the splits, where the dataset has none of its own")
    parser.add_argument("--language", default="en", help="of the captions, as spaCy names it (default en)")
    parser.add_argument("--force", action="store_true", help="build again what is there")
    arguments = parser.parse_args()
    options = SourceOptions(
        images=arguments.images,
        captions=tuple(arguments.captions),
        splits=arguments.splits,
        seed=arguments.seed,
        limit=arguments.limit,
        raw_folder=arguments.out.with_name(arguments.out.name + "-raw"),
        workers=arguments.workers,
    )
    source, tokeniser = read_source(arguments.source, options), Tokeniser(arguments.language)
    how = ("language", "resize", "quality", "shard_mb", "workers", "force")
    manifest = build(source, arguments.out, tokeniser, **{name: getattr(arguments, name) for name in how})
    print(manifest.summary(arguments.out))
