"""Networks by name: torchvision's, and timm's as timm/NAME."""

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, nearest
from imgcap.models.encoders import timm_networks, torchvision_networks
from imgcap.models.encoders.backbone import Backbone, Input


def build_backbone(config: EncoderConfig) -> Backbone:
    """Build the network that `model.encoder` describes, with random weights. Raises `UserError` for what can't be."""
    check_name(config.name)
    return timm_networks.build(config) if is_timms(config.name) else torchvision_networks.build(config)


def input_of(config: EncoderConfig) -> Input:
    """The pictures that a network takes, without building it."""
    check_name(config.name)
    return timm_networks.input_of(config) if is_timms(config.name) else torchvision_networks.input_of(config)


def is_timms(name: str) -> bool:
    """Whether a network is one of timm."""
    return name.startswith(timm_networks.PREFIX)


def check_name(name: str) -> None:
    """Raise `UserError` that names the nearest where neither library knows a name."""
    of_timm = is_timms(name)
    known = timm_networks.names() if of_timm else torchvision_networks.names()
    if name not in known and not (of_timm and name.rpartition(".")[0] in known):  # timm: NAME.TAG of its weights
        more = "" if of_timm else "; timm's networks are named timm/... (pip install 'imgcap[timm]')"
        alike = [other for other in known if name and other.startswith(name)] or [nearest(name, known)]
        raise UserError(
            f"model.encoder.name={name} is no encoder; the nearest is {' or '.join(alike[:3])} (imgcap encoders lists "
            f"all{more})"
        )
    if of_timm and "." in name:
        timm_networks.check_tag(name)
