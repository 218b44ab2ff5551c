"""torchvision's ResNets, ResNeXts and wide ResNets (He et al. 2016, Xie et al. 2017, Zagoruyko and Komodakis 2016)."""

import torchvision
from torch import nn
from torchvision.models import ResNet

from imgcap.errors import UserError, nearest
from imgcap.models.encoders.backbone import Backbone, grid_to_cells

FAMILIES = ("resnet", "resnext", "wide_resnet")
LAYERS = ("layer1", "layer2", "layer3", "layer4")
STAGES: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "relu", "maxpool"), **{name: (name,) for name in LAYERS}}


def build_resnet(name: str, output_stride: int) -> Backbone:
    """Build a randomly initialised ResNet with a stride of 32 pixels, or of 16 by dilating `layer4`.

    Raises `UserError` for a name that torchvision doesn't know.
    """
    known = [other for other in torchvision.models.list_models(torchvision.models) if other.startswith(FAMILIES)]
    if name not in known:
        raise UserError(
            f"model.encoder.name={name} is no encoder; the nearest is {nearest(name, known)} "
            f"(there are {', '.join(sorted(known))})"
        )
    network = torchvision.models.get_model(name, weights=None)
    assert isinstance(network, ResNet)
    width, trained = network.fc.in_features, torchvision.models.get_model_weights(name).DEFAULT.transforms()
    if output_stride == 16:
        _dilate(network.layer4)
    del network.avgpool, network.fc
    return Backbone(
        network, STAGES, grid_to_cells, width, output_stride, "fc.", tuple(trained.mean), tuple(trained.std)
    )


def _dilate(stage: nn.Sequential) -> None:
    """Undo the stride of a stage and dilate what follows it, so that the weights keep their meaning.

    The 3x3 convolution that had the stride sees an undilated grid, each later one a grid twice as
    fine as it was trained on: every second cell of the result equals the strided network's.
    torchvision's own `replace_stride_with_dilation` refuses the basic blocks of ResNet-18 and -34.
    """
    strided = False
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module.kernel_size == (3, 3) and strided:
            module.dilation = module.padding = (2, 2)
        strided |= module.stride == (2, 2) and module.kernel_size == (3, 3)
        module.stride = (1, 1)
