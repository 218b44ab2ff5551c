"""What encoders there are, and what each gives and costs, for a table."""

import fnmatch
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError
from imgcap.models.encoders import timm_networks
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.networks import input_of


class Row(NamedTuple):
    """A line of the table, in words."""

    name: str
    width: str
    cells: str
    parameters: str
    operations: str
    pictures: str


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
    return Row(name, str(width), str(cells), *costs, _pictures(config))


def quick_row(name: str) -> Row:
    """What torchvision says of its best weights of a network."""
    parameters = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    return Row(name, "", "", f"{parameters / 1e6:.1f}M", "", _pictures(EncoderConfig(name=name)))


def _pictures(config: EncoderConfig) -> str:
    taken = input_of(config)
    return f"{taken.size} px, {taken.interpolation}{'' if taken.any_size else ', no other size'}"


def installed_timms() -> list[str]:
    """Names of timm's networks, none where timm isn't installed."""
    try:
        return timm_networks.names()
    except UserError:
        return []
