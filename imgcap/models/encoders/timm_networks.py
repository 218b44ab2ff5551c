"""timm's networks: their features, with the stages by which timm itself groups their parameters.

Dimensions: B images, C channels, Y X rows and columns of a grid, P cells, E encoder width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError, nearest, needs, reason_of
from imgcap.models.encoders.backbone import Backbone, Input, Part, Stage, grid_to_cells

PREFIX = "timm/"


def timm() -> Any:
    """The library, which an extra installs."""
    needs("an encoder named timm/...", "timm")
    import timm

    return timm


def version() -> str:
    """Version of timm: networks and weights of one name have changed between versions."""
    return str(timm().__version__)


def names(pattern: str = "") -> list[str]:
    """Every network of timm, as `model.encoder.name` has it."""
    return [PREFIX + name for name in timm().list_models(f"*{pattern}*" if pattern else "")]


def check_tag(name: str) -> None:
    """Raise `UserError` that names the nearest where a network has no weights of the tag behind its name, NAME.TAG."""
    network, _, tag = name.removeprefix(PREFIX).partition(".")
    try:
        timm().get_pretrained_cfg(f"{network}.{tag}")
    except RuntimeError:
        known = [other.partition(".")[2] for other in timm().list_pretrained(f"{network}.*")]
        meant = f"the nearest is {PREFIX}{network}.{nearest(tag, known)}" if known else f"leave .{tag} out"
        raise UserError(f"model.encoder.name={name}: timm has no weights {tag!r} of {network}; {meant}") from None


def download_of(name: str) -> str | None:
    """Address that the DEFAULT weights of a network would be downloaded from; None where they are here."""
    given = timm().get_pretrained_cfg(name.removeprefix(PREFIX))
    if given.hf_hub_id is None:
        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(given.url or "").path).name
        return None if kept.is_file() or not given.url else str(given.url)
    from huggingface_hub import try_to_load_from_cache  # timm's own way to weights

    files = [given.hf_hub_filename] if given.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    kept_here = any(isinstance(try_to_load_from_cache(given.hf_hub_id, file), str) for file in files)
    return None if kept_here else f"https://huggingface.co/{given.hf_hub_id}"


def input_of(config: EncoderConfig) -> Input:
    """The pictures that a network of timm was trained on, by its `pretrained_cfg`, or has its positions made for."""
    given = timm().get_pretrained_cfg(config.name.removeprefix(PREFIX))
    size, any_size = config.input_size or given.input_size[1], not given.fixed_input_size
    if config.input_size is not None and any_size:
        raise UserError(
            f"model.encoder.input_size={size} is for networks of one size, and {config.name} takes any; leave it out, "
            f"and set data.image_size={size}"
        )
    return Input(tuple(given.mean), tuple(given.std), size, given.interpolation, any_size)


class _Features(nn.Module):
    """A network without what follows its features."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images_BCYX: Tensor) -> Tensor:
        return self.network.forward_features(images_BCYX)  # type: ignore[operator]


def build(config: EncoderConfig) -> Backbone:
    """Build a randomly initialised network of timm. Raises `UserError` for an option that it can't take."""
    name, own = config.name, input_of(config)
    if config.output_stride == 16:
        raise UserError(f"model.encoder.output_stride=16: {name} keeps the grid it was trained with; leave it at 32")
    if config.recompute:
        raise UserError(f"model.encoder.recompute=true: {name} runs as a whole and keeps its activations; leave it out")
    network = create(config)
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if config.input_size and patch and config.input_size % patch[0]:
        raise UserError(f"model.encoder.input_size={config.input_size}: {name} takes a multiple of {patch[0]} pixels")
    leading = getattr(network, "num_prefix_tokens", 0)
    if config.tokens == "all" and not leading:
        raise UserError(f"model.encoder.tokens=all is for networks with a class token; {name} gives a grid alone")
    dropped = leading if config.tokens == "patches" else 0
    to_cells = partial(_to_cells, dropped=dropped, channels_last=getattr(network, "output_fmt", None) == "NHWC")
    try:
        read, width = _read(network, own.size, to_cells)
        stages = _stages(network, read)
    except Exception as error:  # timm has networks of other sorts too
        raise UserError(f"model.encoder.name={name} can't encode ({reason_of(error)}); name another network") from None
    parts = [Part(_Features(network), len(stages))]
    classifiers = network.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{each}." for each in ([classifiers] if isinstance(classifiers, str) else classifiers))
    return Backbone(network, width, stages, parts, to_cells, prefixes, own, leading - dropped)


def create(config: EncoderConfig, **pretrained: Any) -> Any:
    """Call timm's `create_model`, for no classes, with what `pretrained` says of its weights.

    Raises `UserError` for a rate or a size that the network can't take, and lets other errors of timm's through.
    """
    options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    options |= {"img_size": config.input_size} if config.input_size else {}
    try:
        network = timm().create_model(config.name.removeprefix(PREFIX), num_classes=0, **options, **pretrained).eval()
    except (TypeError, AssertionError) as error:
        if not options:
            raise
        asked = " and ".join(
            f"model.encoder.{name}={value}"
            for name, value in {"drop_path": config.drop_path, "input_size": config.input_size}.items()
            if value
        )
        raise UserError(f"{config.name} can't be built with {asked} ({reason_of(error)}); leave it out") from None
    if not config.drop_path:  # some drop by themselves
        for module in network.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
    return network


def _to_cells(features: Tensor, dropped: int, channels_last: bool) -> Tensor:
    """A grid or tokens as cells (B, P, E), without the tokens that are dropped."""
    if features.ndim == 3:
        return features[:, dropped:]
    return features.flatten(1, 2) if channels_last else grid_to_cells(features)


def _stages(network: Any, read: set[str]) -> dict[str, Stage]:
    """Group parameters as timm does for rates by layer: the stem, then each block, the last with what follows it.

    What only the classifier reads, as a norm after pooling, is in none.
    """
    from timm.models import group_parameters

    groups = group_parameters(network, network.group_matcher(coarse=True))
    layers = [[name for name in groups[layer] if name in read] for layer in sorted(groups)]
    names = [f"stage{number}" if number else "stem" for number in range(len(layers))]
    return {
        stage: Stage(tuple(layer), _modules_of(network, layer))
        for stage, layer in zip(names, layers, strict=True)
        if layer
    }


def _read(network: nn.Module, size: int, to_cells: Callable[[Tensor], Tensor]) -> tuple[set[str], int]:
    """Names of the parameters on which the features depend, and the width of these, found without numbers."""
    on_meta = {name: parameter.to("meta").requires_grad_() for name, parameter in network.named_parameters()}
    others = {name: buffer.to("meta") for name, buffer in network.named_buffers()}
    images_BCYX = torch.zeros(2, 3, size, size, device="meta")
    with torch.enable_grad():
        features = functional_call(
            _Features(network), {f"network.{k}": v for k, v in {**on_meta, **others}.items()}, images_BCYX
        )
        gradients = torch.autograd.grad(features.sum(), list(on_meta.values()), allow_unused=True)
    read = {name for name, gradient in zip(on_meta, gradients, strict=True) if gradient is not None}
    return read, to_cells(features).shape[2]


def _modules_of(network: nn.Module, parameters: Sequence[str]) -> tuple[nn.Module, ...]:
    """Modules all of whose parameters are among these, and that have one."""
    own = {id(network.get_parameter(name)) for name in parameters}
    found = []
    for module in network.modules():
        theirs = {id(parameter) for parameter in module.parameters()}
        if theirs and theirs <= own:
            found.append(module)
    return tuple(found)
