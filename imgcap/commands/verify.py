"""Check every byte of a shard set.

    imgcap verify shards/flickr8k --decode

Exit code 0: all is as it was built. 1: damage, named line by line. 2: no shard set. What was left out of the set when
it was built is told by reason, with examples.
"""

import dataclasses
import json
import sys
from contextlib import suppress
from pathlib import Path

from imgcap.commands.arguments import parser_for
from imgcap.errors import UserError, exits_cleanly
from imgcap.shards.manifest import Manifest
from imgcap.shards.verify import verify

# How to mend a set of which nobody knows what it was.
NOBODY_KNOWS = "make the set again: imgcap build SOURCE ... --force, or imgcap index TARS --out ANOTHER"


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decode", action="store_true", help="decode every JPEG too")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    damages = verify(arguments.folder, decode=arguments.decode)
    manifest = None
    with suppress(UserError):  # a manifest that can't be read is among the damages
        manifest = Manifest.load(arguments.folder)
    if arguments.json:
        told = {"ok": not damages, "damages": [dataclasses.asdict(damage) for damage in damages]}
        print(json.dumps(told | {"skipped": manifest.skipped_json() if manifest else {}}))
        sys.exit(1 if damages else 0)
    for damage in damages:
        print(" ".join(part for part in (damage.file, damage.key, damage.what) if part))
    if manifest and not damages:
        for split, info in manifest.splits.items():
            print(f"{split}: {info.images} images, {info.captions} captions, {len(info.shards)} shards")
    if manifest and manifest.skipped:
        print(manifest.skipped_table())
    if damages:
        mend = manifest.how_to_mend(arguments.folder) if manifest else NOBODY_KNOWS
        print(f"{len(damages)} damages in {arguments.folder}; {mend}")
    else:
        print(f"{arguments.folder} is as it was built")
    sys.exit(1 if damages else 0)
