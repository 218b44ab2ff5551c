"""Check every byte of a shard set.

    imgcap verify shards/flickr8k --decode

Exit code 0: all is as it was built. 1: damage, named line by line. 2: no shard set.
"""

import dataclasses
import json
import sys
from pathlib import Path

from imgcap.commands.arguments import parser_for
from imgcap.errors import UserError, exits_cleanly
from imgcap.shards.manifest import Manifest, how_to_mend
from imgcap.shards.verify import verify


def _mend(folder: Path) -> str:
    try:
        return how_to_mend(folder, Manifest.load(folder).is_foreign)
    except UserError:  # nobody knows what it was
        return "make the set again: imgcap build SOURCE ... --force, or imgcap index TARS --out ANOTHER"


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decode", action="store_true", help="decode every JPEG too")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    damages = verify(arguments.folder, decode=arguments.decode)
    if arguments.json:
        print(json.dumps({"ok": not damages, "damages": [dataclasses.asdict(damage) for damage in damages]}))
    elif damages:
        for damage in damages:
            print(" ".join(part for part in (damage.file, damage.key, damage.what) if part))
        print(f"{len(damages)} damages in {arguments.folder}; {_mend(arguments.folder)}")
    else:
        for split, info in Manifest.load(arguments.folder).splits.items():
            print(f"{split}: {info.images} images, {info.captions} captions, {len(info.shards)} shards")
        print(f"{arguments.folder} is as it was built")
    sys.exit(1 if damages else 0)
