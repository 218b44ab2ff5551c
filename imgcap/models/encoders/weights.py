"""Pretrained weights of an encoder: its library's own, or a local file of the same names."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from imgcap.errors import UserError, reason_of
from imgcap.models.encoders import timm_networks
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.networks import is_timms

# What trainers put around a state dict, an average of the weights first, and before the names in it.
ENTRIES = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.")
COUNTERS = ("num_batches_tracked", "n_averaged")  # files may lack the first, and nothing here reads either


def load_pretrained(encoder: Encoder, weights: str | None) -> None:
    """Fill the encoder with `weights`: DEFAULT, a .pth or .safetensors file, or None for random ones.

    A download that fails and a file that doesn't fit are a `UserError`.
    """
    if weights is None:
        return
    if weights == "DEFAULT":
        state, source = _download(encoder), f"DEFAULT of {encoder.name}"
    else:
        state, source = _unwrapped(_read_state(Path(weights)), encoder, weights), weights
        _check_finite(state, source)
    if is_timms(encoder.name) and next(_misfits(encoder, state), None) is not None:
        state = _converted(encoder, state, source)
    _fill(encoder, state, source)


def download_of(name: str, weights: str | None) -> str | None:
    """Address that `weights` of the encoder `name` would be downloaded from; None where they are here, or random."""
    if weights != "DEFAULT":
        return None
    if is_timms(name):
        return timm_networks.download_of(name)
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
        with torch.serialization.safe_globals([Namespace]):  # the arguments of a trainer, which lie beside its weights
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load alone raises five kinds for a damaged file
        reason = "it is no file of torch.save, or a damaged one"
        if path.suffix == ".safetensors":
            reason = "it is no file of safetensors, or a damaged one"
        elif code := _code_in(path):
            reason = f"it holds {code} beside tensors, which only running the file's own code would read"
        raise UserError(f"model.encoder.weights={path} can't be read ({reason}); give a plain state dict") from error
    if not isinstance(state, Mapping):
        raise UserError(f"model.encoder.weights={path} holds a {type(state).__name__}, not a state dict")
    return state


def _code_in(path: Path) -> str | None:
    """A name that a pickle would have to call, of those that `torch.load` does not take for tensors."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # it is no such file
        return None
    return min(set(found) - {"argparse.Namespace"}, default=None)


def _download(encoder: Encoder) -> Mapping[str, Any]:
    try:
        if is_timms(encoder.name):
            return dict(timm_networks.create(encoder.config, pretrained=True).state_dict())
        trained = torchvision.models.get_model_weights(encoder.name).DEFAULT
        return trained.get_state_dict(progress=False, check_hash=True)
    except UserError:
        raise
    except Exception as error:  # of two libraries, and of what they fetch with
        library = "timm" if is_timms(encoder.name) else "torchvision"
        raise UserError(
            f"the weights of {encoder.name} could not be downloaded ({reason_of(error)}); give a local {library} file "
            "with model.encoder.weights=FILE, or start from random ones with model.encoder.weights=none"
        ) from error


def _unwrapped(state: Mapping[str, Any], encoder: Encoder, source: str) -> dict[str, Tensor]:
    """Take off what trainers put around a state dict and before its names, as far as the names aren't the network's."""
    while entry := _entry(state, source):
        state = state[entry]
    wanted = encoder.backbone.state_dict()

    def plain(name: str) -> str:
        while name not in wanted and (prefix := next((each for each in PREFIXES if name.startswith(each)), None)):
            name = name.removeprefix(prefix)
        return name

    return {plain(str(name)): tensor for name, tensor in state.items() if torch.is_tensor(tensor)}


def _entry(state: Mapping[str, Any], source: str) -> str | None:
    """Which entry holds the weights: one of a known name, or the only one with tensors where none lies beside it."""
    inner = {name: value.values() for name, value in state.items() if isinstance(value, Mapping)}
    if known := next((name for name in ENTRIES if name in inner), None):
        return known
    found = [name for name, values in inner.items() if any(map(torch.is_tensor, values))]
    if any(map(torch.is_tensor, state.values())) or not found:
        return None
    if len(found) > 1:
        names = ", ".join(found)
        raise UserError(f"model.encoder.weights={source} holds {len(found)} state dicts: {names}; give a file of one")
    return found[0]


def _check_finite(state: Mapping[str, Tensor], source: str) -> None:
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise UserError(
            f"model.encoder.weights={source}: {wrong[0]} holds numbers that are NaN or infinite ({len(wrong)} such "
            "tensors); take weights from before they went astray"
        )


def _misfits(encoder: Encoder, state: Mapping[str, Tensor]) -> Iterator[tuple[str, list[str]]]:
    """What of a state dict doesn't fit the encoder: the sort of fault, and the names. The classifier is left out.

    What no stage holds, as a norm behind the features, may be lacking.
    """
    wanted = encoder.backbone.state_dict()
    unread = {name for name, _ in encoder.backbone.named_parameters()}
    unread -= {name for stage in encoder.stages.values() for name in stage.parameters}
    given = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.classifier)}
    missing = [name for name in wanted if name not in given and name not in unread and not name.endswith(COUNTERS)]
    surplus = [name for name in given if name not in wanted and not name.endswith(COUNTERS)]
    misshapen = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    for names, fault in ((missing, "lacks"), (surplus, "has an unknown"), (misshapen, "has another shape of")):
        if names:
            yield fault, names


def _converted(encoder: Encoder, state: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """Let timm itself read weights whose names or shapes are those of their authors, or of another picture size."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.classifier)}
    overlay = {"state_dict": kept, "source": "", "custom_load": False, "num_classes": 0}  # no classes: strictly
    try:
        network = timm_networks.create(encoder.config, pretrained=True, pretrained_cfg_overlay=overlay)
    except UserError:
        raise
    except Exception:  # the filters of a hundred networks
        return state  # its misfits say more
    return dict(network.state_dict())


def _fill(encoder: Encoder, state: Mapping[str, Tensor], source: str) -> None:
    for fault, names in _misfits(encoder, state):
        raise UserError(
            f"model.encoder.weights={source} does not fit {encoder.name}: it {fault} {names[0]} ({len(names)} such); "
            f"give a state dict of {'timm' if is_timms(encoder.name) else 'torchvision'}'s "
            f"{encoder.name.removeprefix(timm_networks.PREFIX)}"
        )
    wanted = encoder.backbone.state_dict()
    fitting = {f"backbone.{name}": tensor for name, tensor in state.items() if name in wanted}
    encoder.load_state_dict(fitting, strict=False)
