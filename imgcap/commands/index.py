"""Index tars that others have written, where they lie.

    imgcap index 'cc3m/{00000..00331}.tar' --out shards/cc3m

The tars (of img2dataset, CC3M and the like: .jpg, .jpeg, .png or .webp with .txt, .caption or .json) may be behind
http(s)://, s3://, gs:// or hf:// addresses. Nothing of them is rewritten; OUT holds captions, index and manifest.
"""

import os
from pathlib import Path

from imgcap.commands.arguments import parser_for, positive
from imgcap.errors import exits_cleanly
from imgcap.shards.foreign import expand, index_foreign
from imgcap.text.tokeniser import Tokeniser


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("tars", nargs="+", help="paths with wildcards, paths or addresses with ranges {00000..00331}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shard set")
    parser.add_argument("--split", help="for all of them (default: about 5 %% val and test each, the rest train)")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--language", default="en", help="of the captions, as spaCy names it (default en)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--skip-damaged", action="store_true", help="of a tar that is cut take what is whole")
    arguments = parser.parse_args()
    tars, tokeniser = expand(arguments.tars), Tokeniser(arguments.language)
    how = ("language", "split", "seed", "workers", "skip_damaged")
    manifest = index_foreign(tars, arguments.out, tokeniser, **{name: getattr(arguments, name) for name in how})
    print(manifest.summary(arguments.out))
