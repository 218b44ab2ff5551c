"""Index tars that others have written, where they lie.

    imgcap index 'cc3m/{00000..00331}.tar' --out shards/cc3m
    imgcap index train='a/{0..9}.tar' val='b/*.tar' --out shards/own

The tars (of img2dataset, CC3M and the like: pictures with .txt, .caption or .json) may be behind
http(s)://, s3://, gs:// or hf:// addresses. Nothing of them is rewritten; OUT holds captions, index and manifest.
"""

import os
from pathlib import Path

from imgcap.commands.arguments import parser_for, positive, seed
from imgcap.errors import exits_cleanly
from imgcap.shards.foreign import index_foreign, named_splits
from imgcap.text.tokeniser import Tokeniser

_TARS = "paths with wildcards, paths or addresses with ranges {00000..00331}; with train=, val= or test= before each"


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("tars", nargs="+", help=_TARS)
    parser.add_argument("--out", type=Path, required=True, help="folder of the shard set")
    parser.add_argument("--split", help="for all of them (default: about 5 %% val and test each, the rest train)")
    parser.add_argument("--seed", type=seed, default=0, help="of the splits")
    parser.add_argument("--language", default="en", help="of the captions, as spaCy names it (default en)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--skip-damaged", action="store_true", help="of a tar that is cut take what is whole")
    parser.add_argument("--skip-missing", action="store_true", help="leave out the tars that are not there")
    arguments = parser.parse_args()
    tars, split = named_splits(arguments.tars, arguments.split)
    how = ("language", "seed", "workers", "skip_damaged", "skip_missing")
    options = {name: getattr(arguments, name) for name in how}
    manifest = index_foreign(tars, arguments.out, Tokeniser(arguments.language), split=split, **options)
    print(manifest.summary(arguments.out))
