"""Pretrained weights of an encoder: torchvision's own, or a local file of the same names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from imgcap.errors import UserError
from imgcap.models.encoders.base import Encoder


def load_pretrained(encoder: Encoder, weights: str | None) -> None:
    """Fill the encoder with `weights`: DEFAULT, a .pth or .safetensors file, or None for random ones.

    A download that fails and a file that doesn't fit are a `UserError`.
    """
    if weights is None:
        return
    state = _download(encoder.name) if weights == "DEFAULT" else _plain_names(_read_state(Path(weights)), weights)
    _fill(encoder, state, weights)


def download_of(name: str, weights: str | None) -> str | None:
    """Address that `weights` of the encoder `name` would be downloaded from; None where they are here, or random."""
    if weights != "DEFAULT":
        return None
    address = torchvision.models.get_model_weights(name).DEFAULT.url
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(address).path).name
    return None if kept.is_file() else address


def _read_state(path: Path) -> Mapping[str, Any]:
    """Read a state dict without running pickled code."""
    if not path.is_file():
        raise UserError(f"model.encoder.weights={path} is no file; give a .pth or .safetensors file, DEFAULT or none")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load alone raises five kinds for a damaged file
        reason = str(error).split("\n")[0]
        raise UserError(f"model.encoder.weights={path} can't be read ({reason}); give a plain state dict") from error
    if not isinstance(state, Mapping):
        raise UserError(f"model.encoder.weights={path} holds a {type(state).__name__}, not a state dict")
    return state


def _download(name: str) -> Mapping[str, Any]:
    try:
        return torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the weights of {name} could not be downloaded ({error}); give a local torchvision file with "
            "model.encoder.weights=FILE, or start from random ones with model.encoder.weights=none"
        ) from error


def _plain_names(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Unwrap what trainers put around a state dict: a `state_dict` entry and `module.` in the names."""
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping):
        raise UserError(f"model.encoder.weights={source}: its entry state_dict is no state dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in inner.items() if torch.is_tensor(tensor)}


def _fill(encoder: Encoder, state: Mapping[str, Tensor], source: str) -> None:
    wanted = encoder.backbone.state_dict()
    given = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.classifier)}
    # Files older than PyTorch 0.4.1 don't count BatchNorm's batches, and nothing here reads the count.
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    surplus = [name for name in given if name not in wanted]
    misshapen = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    for names, fault in ((missing, "lacks"), (surplus, "has an unknown"), (misshapen, "has another shape of")):
        if names:
            raise UserError(
                f"model.encoder.weights={source} does not fit {encoder.name}: it {fault} {names[0]} "
                f"({len(names)} such); give a state dict of torchvision's {encoder.name}"
            )
    encoder.load_state_dict({f"backbone.{name}": tensor for name, tensor in given.items()}, strict=False)
