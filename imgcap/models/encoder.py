"""Image encoders: torchvision's ResNets without their pooling and classifier.

Dimensions: B images, C colour channels, H W pixels, P grid cells, E encoder width.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torchvision.models import ResNet

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, nearest
from imgcap.ops.dtypes import compute_dtype

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FAMILIES = ("resnet", "resnext", "wide_resnet")
STAGES = (("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
FROZEN_STAGES = {"none": len(STAGES), "last_block": len(STAGES) - 1, "all": 0}  # by model.encoder.train
STAGES_BEFORE = {"all": 0} | {stage[0]: number for number, stage in enumerate(STAGES) if number}


class Encoder(nn.Module):
    """A convolutional network that turns an image into a grid of feature vectors.

    The constructor builds the architecture with torchvision's random initialisation; pretrained
    values come from `imgcap.models.weights`. Frozen stages take no gradient, keep their BatchNorm
    in eval mode whatever `.train()` says, and run as a copy in the compute dtype that has it folded
    into the convolutions.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        backbone = _build_backbone(config.name)
        self.name = config.name
        self.width: int = backbone.fc.in_features
        self.output_stride = config.output_stride
        self.recompute = config.recompute
        if config.output_stride == 16:
            _dilate(backbone.layer4)
        del backbone.avgpool, backbone.fc
        self.backbone = backbone.to(memory_format=torch.channels_last)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self._folded: tuple[nn.Module, ...] = ()  # in a tuple, so that they are no submodules
        self._folded_dtype: torch.dtype | None = None
        self.register_load_state_dict_post_hook(_unfold)
        self.freeze(FROZEN_STAGES[config.train])

    def freeze(self, stages: int) -> None:
        """Freeze the first `stages` of STAGES and let the others train."""
        self.frozen_stages = stages
        for number, stage in enumerate(STAGES):
            for name in stage:
                getattr(self.backbone, name).requires_grad_(number >= stages)
        _unfold(self)
        self.train(self.training)

    def fold(self) -> None:
        """Make the copy of the frozen stages that `forward` runs, unless there is one.

        `forward` calls it. Who compiles `forward` calls it before, under the autocast that `forward` will run under.
        """
        dtype = compute_dtype(self.backbone.conv1.weight)
        if self._folded_dtype != dtype:
            stages = STAGES[: self.frozen_stages]
            self._folded = tuple(_folded(self.backbone, stage).to(dtype) for stage in stages)
            self._folded_dtype = dtype

    def _apply(self, *arguments: Any, **options: Any) -> "Encoder":
        """Whatever moves or casts the weights: the copy is made again."""
        _unfold(self)
        return super()._apply(*arguments, **options)

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of the trainable stages; the frozen ones stay in eval mode."""
        super().train(mode)
        for stage in STAGES[: self.frozen_stages]:
            for name in stage:
                getattr(self.backbone, name).eval()
        return self

    def sha256(self) -> str:
        """Of the weights, whatever device and precision they are in now: equal ones give equal features."""
        digest = hashlib.sha256(f"{self.name}/{self.output_stride}".encode())
        for name, tensor in sorted(self.backbone.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of the features of a square image; each halving rounds up."""
        cells = -(-image_size // self.output_stride)
        return cells, cells

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Encode uint8 images to features_BPE, the cells in row-major order. What is features already stays so."""
        if images_BCHW.dtype == torch.float16:
            return images_BCHW.to(compute_dtype(self.backbone.conv1.weight))
        self.fold()
        with torch.no_grad(), torch.autocast(images_BCHW.device.type, enabled=False):
            features = images_BCHW.to(self.scale.dtype).contiguous(memory_format=torch.channels_last)
            features = features * self.scale + self.shift
            if self._folded:
                features = features.to(self._folded_dtype)
            for module in self._folded:
                features = module(features)
        for stage in STAGES[self.frozen_stages :]:
            for name in stage:
                module = getattr(self.backbone, name)
                again = self.recompute and name.startswith("layer") and torch.is_grad_enabled()
                features = _recomputed(module, features) if again else module(features)
        # Channels last already lies in memory as (B, P, E): this is a view.
        return features.permute(0, 2, 3, 1).flatten(1, 2)


def _recomputed(stage: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """A stage that keeps its input only, and is run again in the backward pass (Chen et al. 2016)."""
    contexts = lambda: (nullcontext(), _statistics_kept(stage))  # noqa: E731
    features = checkpoint(stage, features, use_reentrant=False, context_fn=contexts)
    return features


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """BatchNorm's running statistics have seen the batch in the forward pass: not a second time."""
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum, deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked = batches


def _unfold(encoder: Encoder, *_: object) -> None:
    """The weights are others: the folded copy of the frozen stages is to be made again."""
    encoder._folded, encoder._folded_dtype = (), None


def _folded(backbone: ResNet, stage: tuple[str, ...]) -> nn.Sequential:
    """A copy of some of a backbone's modules, each BatchNorm folded into the convolution before it."""
    copy = deepcopy(nn.Sequential(OrderedDict((name, getattr(backbone, name)) for name in stage))).eval()
    for module in list(copy.modules()):
        children = dict(module.named_children())
        pairs = [(name, name.replace("conv", "bn")) for name in children if name.startswith("conv")]
        if isinstance(module, nn.Sequential) and len(children) == 2 and isinstance(children.get("1"), nn.BatchNorm2d):
            pairs = [("0", "1")]  # the convolution of a shortcut
        for convolution, norm in pairs:
            before, after = children[convolution], children[norm]
            assert isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)
            setattr(module, convolution, fuse_conv_bn_eval(before, after))
            setattr(module, norm, nn.Identity())
    return copy.requires_grad_(False).to(memory_format=torch.channels_last)


def _build_backbone(name: str) -> ResNet:
    known = [other for other in torchvision.models.list_models(torchvision.models) if other.startswith(FAMILIES)]
    if name not in known:
        raise UserError(
            f"model.encoder.name={name} is no encoder; the nearest is {nearest(name, known)} "
            f"(there are {', '.join(sorted(known))})"
        )
    backbone = torchvision.models.get_model(name, weights=None)
    assert isinstance(backbone, ResNet)
    return backbone


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
