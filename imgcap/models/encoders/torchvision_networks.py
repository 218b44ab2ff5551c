"""torchvision's classification networks, each family as the stages it runs and what its output is.

Dimensions: B images, C channels, Y X rows and columns of a grid, P cells, E encoder width.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models import VisionTransformer
from torchvision.ops import StochasticDepth

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError
from imgcap.models.encoders.backbone import Backbone, Input, grid_to_cells, stages_of


class Family(NamedTuple):
    """What networks of a family have in common."""

    runs: Callable[[nn.Module], dict[str, nn.Module]]  # stages first to last
    classifier: tuple[str, ...]
    to_cells: Callable[[Tensor], Tensor] = grid_to_cells
    any_size: bool = True
    dilates: bool = False  # its last stage can keep the grid twice as fine


def _named(network: nn.Module, *names: str) -> nn.Module:
    """Modules of a network that run one after another, by their names there."""
    return nn.Sequential(OrderedDict((name.replace(".", "_"), network.get_submodule(name)) for name in names))


def _resnet(network: nn.Module) -> dict[str, nn.Module]:
    layers = ("layer1", "layer2", "layer3", "layer4")
    return {"stem": _named(network, "conv1", "bn1", "relu", "maxpool")} | {
        name: _named(network, name) for name in layers
    }


def _regnet(network: nn.Module) -> dict[str, nn.Module]:
    blocks = ("block1", "block2", "block3", "block4")
    return {"stem": _named(network, "stem")} | {name: _named(network, f"trunk_output.{name}") for name in blocks}


def _by_size(network: nn.Module, rows: int = 2, last: str | None = None) -> dict[str, nn.Module]:
    """Divide `features` where the grid gets coarser; `rows` is the axis that counts its rows."""
    groups: list[list[str]] = []
    with torch.no_grad():
        x, before = torch.zeros(2, 3, 64, 64, device="meta"), 0
        for name, module in network.get_submodule("features").named_children():
            x = functional_call(module, _on_meta(module), x)
            if not groups or x.shape[rows] < before:
                groups.append([])
            groups[-1].append(f"features.{name}")
            before = x.shape[rows]
    groups[-1] += [last] if last else []
    return {f"stage{number}": _named(network, *names) for number, names in enumerate(groups, 1)}


def _on_meta(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in (*module.named_parameters(), *module.named_buffers())}


class _Tokens(nn.Module):
    """The stem of a ViT: patches, a class token before them, and positions."""

    def __init__(self, network: VisionTransformer):
        super().__init__()
        self.conv_proj, self.dropout = network.conv_proj, network.encoder.dropout
        self.class_token, self.pos_embedding = network.class_token, network.encoder.pos_embedding

    def forward(self, images_BCYX: Tensor) -> Tensor:
        patches_BPE = self.conv_proj(images_BCYX).flatten(2).transpose(1, 2)
        tokens_BPE = torch.cat([self.class_token.expand(len(patches_BPE), -1, -1), patches_BPE], dim=1)
        return self.dropout(tokens_BPE + self.pos_embedding)


def _vit(network: nn.Module) -> dict[str, nn.Module]:
    assert isinstance(network, VisionTransformer)
    names = [f"encoder.layers.{name}" for name, _ in network.encoder.layers.named_children()]
    layers = {f"layer{number}": _named(network, name) for number, name in enumerate(names[:-1], 1)}
    return {"stem": _Tokens(network), **layers, f"layer{len(names)}": _named(network, names[-1], "encoder.ln")}


def _normed_cells(features_BCYX: Tensor) -> Tensor:
    """DenseNet's last norm is followed by a ReLU in its forward."""
    return grid_to_cells(features_BCYX.relu())


FAMILIES = {
    ("resnet", "resnext", "wide_resnet"): Family(_resnet, ("fc.",), dilates=True),
    ("regnet",): Family(_regnet, ("fc.",), dilates=True),
    ("mobilenet", "efficientnet"): Family(_by_size, ("classifier.",), dilates=True),
    ("convnext",): Family(_by_size, ("classifier.",)),
    ("densenet",): Family(_by_size, ("classifier.",), _normed_cells),
    ("swin",): Family(
        partial(_by_size, rows=1, last="norm"), ("head.",), partial(torch.flatten, start_dim=1, end_dim=2)
    ),
    ("vit",): Family(_vit, ("heads.",), lambda tokens_BPE: tokens_BPE, any_size=False),
}
PREFIXES = tuple(prefix for family in FAMILIES for prefix in family)
HEADS = ("avgpool", "fc", "classifier", "head", "heads", "permute", "flatten")  # what a classifier has beyond


def names() -> list[str]:
    """Every network of torchvision that can encode."""
    return [name for name in torchvision.models.list_models(torchvision.models) if name.startswith(PREFIXES)]


def input_of(config: EncoderConfig) -> Input:
    """The pictures that torchvision's best weights of a network were trained on."""
    if config.input_size is not None:
        raise UserError(
            f"model.encoder.input_size={config.input_size} is for timm's networks of one size, and {config.name} is "
            "none; leave it out"
        )
    trained = torchvision.models.get_model_weights(config.name).DEFAULT.transforms()
    size, interpolation = trained.crop_size[0], trained.interpolation.value
    return Input(tuple(trained.mean), tuple(trained.std), size, interpolation, _family(config.name).any_size)


def _family(name: str) -> Family:
    return next(family for prefixes, family in FAMILIES.items() if name.startswith(prefixes))


def build(config: EncoderConfig) -> Backbone:
    """Build a randomly initialised network of torchvision. Raises `UserError` for an option that it can't take."""
    name, own = config.name, input_of(config)
    family = _family(name)
    if config.output_stride == 16 and not family.dilates:
        raise UserError(f"model.encoder.output_stride=16: {name} can't keep its grid finer; leave it at 32")
    if config.tokens == "all" and family.any_size:
        raise UserError(f"model.encoder.tokens=all is for networks with a class token; {name} gives a grid alone")
    size = {} if family.any_size else {"image_size": own.size}
    network = torchvision.models.get_model(name, weights=None, **size).eval()
    _drop_paths(network, config)
    runs = family.runs(network)
    if config.output_stride == 16:
        dilate(list(runs.values())[-1])
    heads = [module for name, module in network.named_children() if name in HEADS]
    width = next(layer.in_features for head in heads for layer in head.modules() if isinstance(layer, nn.Linear))
    for head in HEADS:
        if hasattr(network, head):
            delattr(network, head)
    leading = 0 if family.any_size else 1
    to_cells = family.to_cells
    if leading and config.tokens == "patches":
        to_cells, leading = _without_class_token, 0
    return Backbone(network, width, *stages_of(network, runs), to_cells, family.classifier, own, leading)


def _drop_paths(network: nn.Module, config: EncoderConfig) -> None:
    """Drop a residual branch at random, the deeper the more often (Huang et al. 2016)."""
    branches = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    if config.drop_path and not branches:
        raise UserError(f"model.encoder.drop_path={config.drop_path}: {config.name} has no branch to drop; set it to 0")
    for number, branch in enumerate(branches):
        branch.p = config.drop_path * number / max(len(branches) - 1, 1)


def _without_class_token(tokens_BPE: Tensor) -> Tensor:
    return tokens_BPE[:, 1:]


def dilate(stage: nn.Module) -> None:
    """Undo the stride of a stage and dilate what follows it, so that the weights keep their meaning.

    The convolution that had the stride sees an undilated grid, each later one a grid twice as fine as it was trained
    on: every second cell of the result equals the strided network's.
    torchvision's own `replace_stride_with_dilation` refuses the basic blocks of ResNet-18 and -34.
    """
    strided = False
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        wide = module.kernel_size[0] > 1
        if wide and strided:
            module.dilation = (2, 2)
            module.padding = tuple(2 * (side // 2) for side in module.kernel_size)
        strided |= module.stride == (2, 2) and wide
        module.stride = (1, 1)
