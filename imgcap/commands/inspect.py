"""Look at a shard set: samples with captions, caption lengths and words, and images that splits share.

    imgcap inspect shards/flickr8k --out shards/flickr8k-look

OUT gets samples-SPLIT.png, captions.png, twice.png where splits share images, and report.json.
"""

import json
from pathlib import Path
from typing import Any

from imgcap.commands.arguments import parser_for, positive, seed
from imgcap.errors import exits_cleanly
from imgcap.shards.inspection import inspect
from imgcap.shards.manifest import Manifest
from imgcap.shards.place import Place


def print_report(report: dict[str, Any]) -> None:
    for split, numbers in report["splits"].items():
        print(f"{split}: " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in numbers.items()))
    for split, shares in report["unknown_words"].items():
        told = ", ".join(f"min_count {least}: {share:.2%}" for least, share in shares.items())
        print(f"words of {split} that the vocabulary of train lacks: {told}")
    twice = report["twice"]
    print(f"images in two splits: {twice['exact']} with the same bytes, {twice['alike']} that look alike")


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("shards", help="folder or address of the shard set")
    parser.add_argument("--out", type=Path, help="folder for what is drawn (default: SHARDS-look)")
    parser.add_argument("--seed", type=seed, default=0, help="of the samples that are drawn")
    parser.add_argument("--limit", type=positive, help="look at so many images of each split at most")
    parser.add_argument("--json", action="store_true", help="the report on stdout, nothing else there")
    arguments = parser.parse_args()
    place = Place(arguments.shards)
    out = arguments.out or Path(f"{Path(place.address).name if place.is_remote else place.address}-look")
    report = inspect(place, out, arguments.seed, arguments.limit)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(report))
    else:
        print_report(report)
        if skipped := Manifest.load(place).skipped_table():
            print(skipped)
        print(f"look at {out}")
