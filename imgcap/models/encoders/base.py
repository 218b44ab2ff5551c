"""The image encoder: a walk over the stages of a backbone, frozen up to one of them.

Dimensions: B images, C colour channels, H W pixels, P grid cells, E encoder width.
"""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, nearest, reason_of
from imgcap.models.encoders import timm_networks
from imgcap.models.encoders.backbone import Stage
from imgcap.models.encoders.frozen import drops, folded, recomputed
from imgcap.models.encoders.networks import build_backbone, is_timms
from imgcap.models.kernels.dtypes import compute_dtype


class Encoder(nn.Module):
    """A network that turns an image into feature vectors of its grid cells.

    The constructor gives random weights; pretrained ones come from `imgcap.models.encoders.weights`. Frozen stages
    take no gradient, keep their BatchNorm in eval mode whatever `.train()` says, and run as a copy in the compute
    dtype that has it folded into the convolutions.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: EncoderConfig):
        super().__init__()
        backbone = build_backbone(config)
        self.name, self.recompute, self.output_stride = config.name, config.recompute, config.output_stride
        self.stages, self.parts, self.to_cells = backbone.stages, tuple(backbone.parts), backbone.to_cells
        self.width, self.input, self.leading = backbone.width, backbone.input, backbone.leading
        self.config, self.classifier = config, backbone.classifier
        self.backbone = backbone.module.to(memory_format=torch.channels_last)
        if config.recompute and (dropping := drops(self.backbone)):
            raise UserError(
                f"model.encoder.recompute=true: {self.name} drops at random ({dropping}), which it would draw anew "
                "when it is run again; set model.encoder.drop_path=0, or recompute=false"
            )
        mean, std = torch.tensor(self.input.mean), torch.tensor(self.input.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1), persistent=False)
        self._cells: dict[int, int] = {}  # by image size
        self._folded: tuple[nn.Module, ...] = ()  # in a tuple, so that they are no submodules
        self._folded_dtype: torch.dtype | None = None
        self.register_load_state_dict_post_hook(_unfold)
        self.freeze(self.frozen_before(config.train, "model.encoder.train"))

    def frozen_before(self, trained: str, key: str) -> int:
        """Count the stages that are frozen where `trained` and all behind it train.

        `trained` is a stage's name, `last_block`, `all`, or `none` of them; UserError, naming the key, for another.
        """
        names = list(self.stages)
        known = {"none": len(names), "last_block": len(names) - 1, "all": 0}
        known |= {name: number for number, name in enumerate(names)}
        if trained not in known:
            raise UserError(
                f"{key}: {self.name} has no stage {trained!r}; the nearest is {nearest(trained, known)!r} "
                f"(there are {', '.join(known)})"
            )
        return known[trained]

    def freeze(self, stages: int) -> None:
        """Freeze the first `stages` stages and let the others train."""
        self.frozen_stages = stages
        self.backbone.requires_grad_(False)  # also what no stage has: only the classifier read it
        for stage in list(self.stages.values())[stages:]:
            for name in stage.parameters:
                self.backbone.get_parameter(name).requires_grad_()
        _unfold(self)
        self.train(self.training)

    @property
    def _frozen(self) -> list[Stage]:
        return list(self.stages.values())[: self.frozen_stages]

    def fold(self) -> None:
        """Make the copy of the frozen stages that `forward` runs, unless there is one.

        `forward` calls it. Who compiles `forward` calls it before, under the autocast that `forward` will run under.
        """
        dtype = self.compute_dtype
        if self._folded_dtype != dtype:
            frozen = (part.run for part in self.parts if part.stages <= self.frozen_stages)
            self._folded = tuple(folded(run).to(dtype) for run in frozen)
            self._folded_dtype = dtype

    @property
    def folded(self) -> tuple[nn.Module, ...]:
        """The copy of the frozen stages that `forward` runs now; another one after the weights have changed."""
        return self._folded

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the encoder's products and so of its features, under the autocast of now."""
        return compute_dtype(next(self.backbone.parameters()))

    def _apply(self, *arguments: Any, **options: Any) -> "Encoder":
        """Move or cast the weights; the folded copy of them is made again."""
        _unfold(self)
        return super()._apply(*arguments, **options)

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of the trainable stages; the frozen ones stay in eval mode."""
        super().train(mode)
        for stage in self._frozen:
            for module in stage.modules:
                module.eval()
        return self

    @property
    def made_by(self) -> str:
        """What computes the features, but for the weights: network, output stride, and the version of timm."""
        library = f", timm {timm_networks.version()}" if is_timms(self.name) else ""
        return f"{self.name}, stride {self.output_stride}{library}"

    def signed(self) -> dict[str, str]:
        """What a score's signature says of an encoder of timm, whose networks and weights change under their names."""
        if not is_timms(self.name):
            return {}
        return {"encoder": f"{self.name}@{self.sha256()[:12]}", "timm": timm_networks.version()}

    def sha256(self) -> str:
        """Hash the weights, whatever device and precision they are in now: equal ones give equal features."""
        tokens = "/all" if self.config.tokens == "all" else ""
        digest = hashlib.sha256(f"{self.name}/{self.output_stride}{tokens}".encode())
        for name, tensor in sorted(self.backbone.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def grid(self, image_size: int) -> tuple[int, int]:
        """Rows and columns of the features of a square image of so many pixels.

        Class and register tokens are before them in `features_BPE`, `leading` in number.
        """
        side = math.isqrt(self.cells(image_size) - self.leading)
        return side, side

    def check_size(self, image_size: int) -> None:
        """Raise `UserError` where the network takes pictures of another size alone."""
        if self.input.any_size or image_size == self.input.size:
            return
        other = f", or model.encoder.input_size={image_size} too" if is_timms(self.name) else ""
        raise UserError(
            f"data.image_size={image_size}: {self.name} takes pictures of {self.input.size} pixels; "
            f"set data.image_size={self.input.size}{other}"
        )

    def cells(self, image_size: int) -> int:
        """Feature vectors of a square image of so many pixels. Raises `UserError` for a size that can't be encoded."""
        self.check_size(image_size)
        if image_size in self._cells:
            return self._cells[image_size]
        try:
            return self._cells.setdefault(image_size, self._shape(image_size)[1])
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"data.image_size={image_size} is none that {self.name} takes ({reason_of(error)})"
            ) from None

    def _shape(self, image_size: int) -> torch.Size:
        """Shape of the features of two images, computed without numbers."""
        features = torch.zeros(2, 3, image_size, image_size, device="meta")
        with torch.no_grad():
            for part in self.parts:
                tensors = (*part.run.named_parameters(), *part.run.named_buffers())
                features = functional_call(part.run, {name: tensor.to("meta") for name, tensor in tensors}, features)
        return self.to_cells(features).shape

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Encode uint8 images to features_BPE, the cells in row-major order."""
        self.fold()
        with torch.no_grad(), torch.autocast(images_BCHW.device.type, enabled=False):
            features = images_BCHW.to(self.scale.dtype).contiguous(memory_format=torch.channels_last)
            features = features * self.scale + self.shift
            if self._folded:
                features = features.to(self._folded_dtype)
            for module in self._folded:
                features = module(features)
        for number, part in enumerate(self.parts):
            if part.stages > self.frozen_stages:
                again = self.recompute and number and torch.is_grad_enabled()
                features = recomputed(part.run, features) if again else part.run(features)
        return self.to_cells(features)


def _unfold(encoder: Encoder, *_: object) -> None:
    """Drop an encoder's folded copy of its frozen stages: the weights are others."""
    encoder._folded, encoder._folded_dtype = (), None
