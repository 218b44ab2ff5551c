"""List the encoders there are, torchvision's and timm's: what a PATTERN names, with what each gives and costs.

    imgcap encoders
    imgcap encoders mobilenet
    imgcap encoders 'timm/*siglip*224*'

Width and cells are of the features that a decoder gets of a picture in the size that the weights were trained on;
parameters and GFLOP (a multiplication and an addition are two) are without the classifier. Without a PATTERN the list
is quick: torchvision's names, and parameters with the classifier.
"""

import sys

from imgcap.commands.arguments import parser_for
from imgcap.errors import UserError, exits_cleanly, nearest


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="part of a name, or a name with * and ?")
    pattern = parser.parse_args().pattern

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.models.encoders import torchvision_networks
    from imgcap.models.encoders.listing import Row, installed_timms, matching, quick_row, row

    def print_line(name: str, width: str, cells: str, parameters: str, operations: str, pictures: str) -> None:
        print(f"{name:<{widest}} {width:>6} {cells:>6} {parameters:>11} {operations:>8}  {pictures}", flush=True)

    own, timms = torchvision_networks.names(), installed_timms()
    names = matching(pattern, [*own, *timms]) if pattern else own
    if not names:
        installed = "" if timms else "; timm's are listed once it is installed (pip install 'imgcap[timm]')"
        raise UserError(
            f"no encoder is called {pattern!r}; the nearest is {nearest(pattern, [*own, *timms])}{installed}"
        )
    widest = max(map(len, names))
    print_line(*Row("name", "width", "cells", "parameters", "GFLOP", "input"))
    for name in names:
        try:
            print_line(*(row(name) if pattern else quick_row(name)))
        except UserError as reason:  # timm has networks of other sorts too
            print(f"{name}: {reason}", file=sys.stderr, flush=True)
    if not pattern:
        print("parameters are those with the classifier; imgcap encoders NAME tells all of a network without it")
        print(
            f"and {len(timms):,} of timm: imgcap encoders 'timm/*clip*' lists some"
            if timms
            else "timm has 1,000 more, CLIP, SigLIP and DINO among them: pip install 'imgcap[timm]'"
        )
