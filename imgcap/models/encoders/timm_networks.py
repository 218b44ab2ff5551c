"""timm's networks: their features, with the stages by which timm itself groups their parameters.

Dimensions: B images, C channels, Y X rows and columns of a grid, P cells, E encoder width.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError
from imgcap.models.encoders.backbone import Backbone, Input, Part, Stage, grid_to_cells

PREFIX = "timm/"


def timm() -> Any:
    """The library, which an extra installs."""
    try:
        import timm
    except ImportError:
        raise UserError("encoders named timm/... need timm; pip install 'imgcap[timm]'") from None
    return timm


def names(pattern: str = "") -> list[str]:
    """Every network of timm, as `model.encoder.name` has it."""
    return [PREFIX + name for name in timm().list_models(f"*{pattern}*" if pattern else "")]


def input_of(name: str) -> Input:
    """The pictures that a network of timm was trained on, by its `pretrained_cfg`."""
    given = timm().get_pretrained_cfg(name.removeprefix(PREFIX))
    return Input(tuple(given.mean), tuple(given.std), given.input_size[1], given.interpolation)


class _Features(nn.Module):
    """A network without what follows its features."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images_BCYX: Tensor) -> Tensor:
        return self.network.forward_features(images_BCYX)  # type: ignore[operator]


def build(config: EncoderConfig) -> Backbone:
    """Build a randomly initialised network of timm. Raises `UserError` for an option that it can't take."""
    name, own = config.name, input_of(config.name)
    if config.output_stride == 16:
        raise UserError(f"model.encoder.output_stride=16: {name} keeps the grid it was trained with; leave it at 32")
    options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    try:
        network = timm().create_model(name.removeprefix(PREFIX), pretrained=False, num_classes=0, **options).eval()
    except TypeError:
        raise UserError(
            f"model.encoder.drop_path={config.drop_path}: {name} has no branch to drop; set it to 0"
        ) from None
    leading = getattr(network, "num_prefix_tokens", 0)
    if config.tokens == "all" and not leading:
        raise UserError(f"model.encoder.tokens=all is for networks with a class token; {name} gives a grid alone")
    dropped = leading if config.tokens == "patches" else 0
    any_size = not network.pretrained_cfg.get("fixed_input_size", False)
    stages = _stages(network, own.size)
    to_cells = partial(_to_cells, dropped=dropped, channels_last=getattr(network, "output_fmt", None) == "NHWC")
    parts = [Part(_Features(network), len(stages))]
    return Backbone(network, stages, parts, to_cells, (), own, any_size, leading - dropped)


def _to_cells(features: Tensor, dropped: int, channels_last: bool) -> Tensor:
    """A grid or tokens as cells (B, P, E), without the tokens that are dropped."""
    if features.ndim == 3:
        return features[:, dropped:]
    return features.flatten(1, 2) if channels_last else grid_to_cells(features)


def _stages(network: Any, size: int) -> dict[str, Stage]:
    """Group parameters as timm does for rates by layer: the stem, then each block, the last with what follows it.

    What only the classifier reads, as a norm after pooling, is in none.
    """
    from timm.models import group_parameters

    read = _read(network, size)
    groups = group_parameters(network, network.group_matcher(coarse=True))
    layers = [[name for name in groups[layer] if name in read] for layer in sorted(groups)]
    names = [f"stage{number}" if number else "stem" for number in range(len(layers))]
    return {
        stage: Stage(tuple(layer), _modules_of(network, layer))
        for stage, layer in zip(names, layers, strict=True)
        if layer
    }


def _read(network: nn.Module, size: int) -> set[str]:
    """Names of the parameters on which the features depend."""
    on_meta = {name: parameter.to("meta").requires_grad_() for name, parameter in network.named_parameters()}
    others = {name: buffer.to("meta") for name, buffer in network.named_buffers()}
    images_BCYX = torch.zeros(2, 3, size, size, device="meta")
    with torch.enable_grad():
        features = functional_call(
            _Features(network), {f"network.{k}": v for k, v in {**on_meta, **others}.items()}, images_BCYX
        )
        gradients = torch.autograd.grad(features.sum(), list(on_meta.values()), allow_unused=True)
    return {name for name, gradient in zip(on_meta, gradients, strict=True) if gradient is not None}


def _modules_of(network: nn.Module, parameters: Sequence[str]) -> tuple[nn.Module, ...]:
    """Modules all of whose parameters are among these, and that have one."""
    own = {id(network.get_parameter(name)) for name in parameters}
    found = []
    for module in network.modules():
        theirs = {id(parameter) for parameter in module.parameters()}
        if theirs and theirs <= own:
            found.append(module)
    return tuple(found)
