"""List the encoders there are, torchvision's and timm's: what a PATTERN names, with what each gives and costs.

    imgcap encoders
    imgcap encoders mobilenet
    imgcap encoders 'timm/*siglip*224*'

Width and cells are of the features that a decoder gets of a picture in the size that the weights were trained on;
parameters and GFLOP (a multiplication and an addition are two) are without the classifier. Without a PATTERN the list
is quick: torchvision's names, and parameters with the classifier.
"""

import fnmatch
import sys
from collections.abc import Iterable

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from imgcap.commands.arguments import parser_for
from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, exits_cleanly, nearest
from imgcap.models.encoders import timm_networks, torchvision_networks
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.networks import input_of

Row = tuple[str, str, str, str, str, str]
COLUMNS: Row = ("name", "width", "cells", "parameters", "GFLOP", "input")


def matching(pattern: str, known: Iterable[str]) -> list[str]:
    """Names that hold `pattern`, or that it describes where it has wildcards."""
    whole = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return [name for name in known if fnmatch.fnmatchcase(name, whole)]


def row(name: str) -> Row:
    """What a network gives and costs, computed without numbers."""
    config = EncoderConfig(name=name, weights=None)
    try:
        with torch.device("meta"):
            encoder = Encoder(config)
    except (RuntimeError, NotImplementedError):  # some of timm's read numbers while they are built
        encoder = Encoder(config)
    size = encoder.input.size
    with FlopCounterMode(display=False) as counter:
        cells = encoder.cells(size)
    read = (encoder.backbone.get_parameter(each) for stage in encoder.stages.values() for each in stage.parameters)
    parameters = sum(parameter.numel() for parameter in read)
    operations = counter.get_total_flops() / 2  # of two images
    width, costs = encoder.width, (f"{parameters / 1e6:.1f}M", f"{operations / 1e9:.1f}")
    return name, str(width), str(cells), *costs, _pictures(config)


def quick_row(name: str) -> Row:
    """What torchvision says of its best weights of a network."""
    parameters = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    return name, "", "", f"{parameters / 1e6:.1f}M", "", _pictures(EncoderConfig(name=name))


def _pictures(config: EncoderConfig) -> str:
    taken = input_of(config)
    return f"{taken.size} px, {taken.interpolation}{'' if taken.any_size else ', no other size'}"


def _timms() -> list[str]:
    try:
        return timm_networks.names()
    except UserError:
        return []


def line(name: str, width: str, cells: str, parameters: str, operations: str, pictures: str, widest: int) -> str:
    """A line of the table."""
    return f"{name:<{widest}} {width:>6} {cells:>6} {parameters:>11} {operations:>8}  {pictures}"


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="part of a name, or a name with * and ?")
    pattern = parser.parse_args().pattern
    own, timms = torchvision_networks.names(), _timms()
    names = matching(pattern, [*own, *timms]) if pattern else own
    if not names:
        installed = "" if timms else "; timm's are listed once it is installed (pip install 'imgcap[timm]')"
        raise UserError(
            f"no encoder is called {pattern!r}; the nearest is {nearest(pattern, [*own, *timms])}{installed}"
        )
    widest = max(map(len, names))
    print(line(*COLUMNS, widest=widest))
    for name in names:
        try:
            print(line(*(row(name) if pattern else quick_row(name)), widest=widest), flush=True)
        except UserError as reason:  # timm has networks of other sorts too
            print(f"{name}: {reason}", file=sys.stderr, flush=True)
    if not pattern:
        print(
            f"and {len(timms):,} of timm: imgcap encoders 'timm/*clip*' lists some"
            if timms
            else "timm has 1,000 more, CLIP, SigLIP and DINO among them: pip install 'imgcap[timm]'"
        )
