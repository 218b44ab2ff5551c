"""Say which of two models captions better, and how sure that is.

    imgcap compare runs/a runs/b --split test --out comparison.html
    imgcap compare a.json b.json --references shards/flickr8k:test

A and B are runs that imgcap evaluate has scored, or files of captions in COCO's result format. The table goes to
stderr, the images that changed most to an HTML page, and one line of JSON to stdout.
"""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from imgcap.commands.arguments import LANGUAGE, new_file, parser_for, positive, seed
from imgcap.errors import exits_cleanly, work_begins
from imgcap.evaluation.table import SCALE

if TYPE_CHECKING:
    from imgcap.evaluation.comparison.sides import Comparison


def print_table(comparison: "Comparison") -> None:
    print(f"{'':>10}{'A':>8}{'B':>8}{'B - A':>8}   {'95 % interval':<18}B wins", file=sys.stderr)
    for name, found in comparison.differences.items():
        interval = f"{found.low:+.3f} .. {found.high:+.3f}"
        scores = f"{found.a:>8.3f}{found.b:>8.3f}{found.difference:>+8.3f}"
        print(f"{name:>10}{scores}   {interval:<18}{found.b_wins:.1%}", file=sys.stderr)
    for name, (a, b) in comparison.by_programs.items():
        print(f"{name:>10}{a:>8.3f}{b:>8.3f}{b - a:>+8.3f}   not resampled", file=sys.stderr)
    for name, absent in comparison.not_computed.items():
        print(f"{name:>10}: not computed in {' and '.join(absent)}", file=sys.stderr)
    print(SCALE, file=sys.stderr)


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("a", metavar="A", help="a run, or a JSON list of {image_id, caption}")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--split", default="test", help="of runs (default test)")
    parser.add_argument("--references", help="captions_*.json of COCO, or shards/NAME:SPLIT (default: those of a run)")
    parser.add_argument("--language", help=LANGUAGE)
    parser.add_argument("--out", type=new_file, default="comparison.html", help="the page (default comparison.html)")
    parser.add_argument("--resamples", type=positive, default=2000)
    parser.add_argument("--seed", type=seed, default=0, help="of the resamples")
    arguments = parser.parse_args()

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.evaluation.comparison.page import write_page
    from imgcap.evaluation.comparison.sides import compare, load_sides

    work_begins()
    first, second = load_sides(arguments.a, arguments.b, arguments.split)
    comparison = compare(
        first, second, arguments.references, arguments.split, arguments.language, arguments.resamples, arguments.seed
    )
    print_table(comparison)
    report = {name: dataclasses.asdict(found) for name, found in comparison.differences.items()}
    found = {"a": first.name, "b": second.name, "images": len(comparison.references), "resamples": arguments.resamples}
    print(json.dumps({**found, "seed": arguments.seed, "differences": report, "page": str(arguments.out)}), flush=True)
    write_page(arguments.out, comparison)
