"""Networks by name: torchvision's, and timm's as timm/NAME."""

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, nearest
from imgcap.models.encoders import timm_networks, torchvision_networks
from imgcap.models.encoders.backbone import Backbone, Input


def build_backbone(config: EncoderConfig) -> Backbone:
    """Build the network that `model.encoder` describes, with random weights. Raises `UserError` for what can't be."""
    check_name(config.name)
    library = timm_networks if config.name.startswith(timm_networks.PREFIX) else torchvision_networks
    return library.build(config)


def input_of(name: str) -> Input:
    """The pictures that a network was trained on, without building it."""
    check_name(name)
    return (
        timm_networks.input_of(name) if name.startswith(timm_networks.PREFIX) else torchvision_networks.input_of(name)
    )


def check_name(name: str) -> None:
    """Raise `UserError` that names the nearest where neither library knows a name."""
    of_timm = name.startswith(timm_networks.PREFIX)
    known = timm_networks.names() if of_timm else torchvision_networks.names()
    if name not in known and not (of_timm and name.rpartition(".")[0] in known):  # timm: NAME.TAG of its weights
        more = "" if of_timm else "; timm's networks are named timm/... (pip install 'imgcap[timm]')"
        alike = [other for other in known if name and other.startswith(name)] or [nearest(name, known)]
        raise UserError(
            f"model.encoder.name={name} is no encoder; the nearest is {' or '.join(alike[:3])} (imgcap encoders lists "
            f"all{more})"
        )
