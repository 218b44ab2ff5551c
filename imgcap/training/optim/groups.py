"""The optimiser and its parameter groups."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from imgcap.config.training import OptimConfig
from imgcap.models.encoders.base import Encoder

FUSED_DEVICES = ("cpu", "cuda", "mps")


def build_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """Build AdamW over the trainable parameters, the encoder's at `encoder_lr`, the others' at `lr`.

    Matrices and convolutions decay; biases, norms, embeddings, positions and class tokens don't. With `layer_decay`
    each stage of the encoder has groups of its own, the last at `encoder_lr` and each before it at that share of the
    next one's (Clark et al. 2020; Bao et al. 2022). Each group has a `name` and remembers its `base_lr`. Its `lr`,
    which `set_rates` sets, is a 0-D tensor on the device, so that no step reads or bakes it in.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    rates = {"encoder": config.encoder_lr or config.lr, "decoder": config.lr}
    stage_of: dict[str, str] = {}
    if config.layer_decay < 1:
        for distance, (stage, names) in enumerate(reversed(_stages(model))):
            rates[stage] = rates["encoder"] * config.layer_decay**distance
            stage_of |= dict.fromkeys(names, stage)
    parameters: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = stage_of.get(name, "encoder" if name.startswith("encoder.") else "decoder")
            is_weight = "weight" in name.rpartition(".")[2]  # a class token or a layer's scale is none
            decays = parameter.ndim > 1 and is_weight and id(parameter) not in embeddings
            parameters.setdefault((part, decays), []).append(parameter)
    groups = [
        {
            "params": members,
            "name": part if decays else f"{part}_no_decay",
            "lr": rate_on(members[0].device, rates[part]),
            "base_lr": rates[part],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (part, decays), members in parameters.items()
    ]
    fused = all(parameter.device.type in FUSED_DEVICES for members in parameters.values() for parameter in members)
    return AdamW(groups, lr=config.lr, fused=fused)


def _stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Stages of a captioner's encoder, first to last: the name of a group, and its parameters' names in the model."""
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, Encoder)
    return [
        (f"encoder.{name}", [f"encoder.backbone.{parameter}" for parameter in stage.parameters])
        for name, stage in encoder.stages.items()
    ]


def rate_on(device: torch.device, rate: float) -> Tensor:
    """A rate or a factor of rates as a 0-D tensor: float64 on a CPU, float32 elsewhere, as fused updates read it."""
    return torch.full((), rate, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)


def set_rates(groups: list[dict[str, Any]], rate: Tensor) -> None:
    """Set each group's learning rate to its base times `rate` (0-D)."""
    for group in groups:
        group["lr"].fill_(group["base_lr"] * rate)


def base_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Learning rates before the schedule: `lr`, and `encoder_lr`, of the encoder's last stage, where that trains."""
    rates: dict[str, float] = {}
    for group in groups:
        name = "encoder_lr" if group["name"].startswith("encoder") else "lr"
        rates[name] = max(group["base_lr"], rates.get(name, 0.0))
    return {name: rates[name] for name in ("lr", "encoder_lr") if name in rates}
