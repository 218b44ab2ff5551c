"""Turn a dataset into a verified shard set: `python tools/build_shards.py SOURCE --out shards/NAME ...`."""

import argparse
import os
from pathlib import Path

from imgcap.errors import exits_cleanly
from imgcap.shards.builder import build
from imgcap.shards.sources.registry import SOURCE_NAMES, SourceOptions, read_source
from imgcap.text.tokeniser import Tokeniser


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
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
    return parser.parse_args()


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def percent(text: str) -> int:
    if not 1 <= int(text) <= 100:
        raise ValueError
    return int(text)


def megabytes(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    options = SourceOptions(
        images=arguments.images,
        captions=tuple(arguments.captions),
        splits=arguments.splits,
        seed=arguments.seed,
        limit=arguments.limit,
        raw_folder=arguments.out.with_name(arguments.out.name + "-raw"),
        workers=arguments.workers,
    )
    manifest = build(
        read_source(arguments.source, options),
        arguments.out,
        Tokeniser(arguments.language),
        language=arguments.language,
        resize=arguments.resize,
        quality=arguments.quality,
        shard_mb=arguments.shard_mb,
        workers=arguments.workers,
        force=arguments.force,
    )
    print(manifest.summary(arguments.out))


if __name__ == "__main__":
    main()
