"""The optimiser and its parameter groups."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from imgcap.config.training import OptimConfig

FUSED_DEVICES = ("cpu", "cuda", "mps")


def build_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """Build AdamW over the trainable parameters, the encoder's at `encoder_lr`, the others' at `lr`.

    Matrices and convolutions decay; biases, norms and embeddings don't. Each group has a `name` and remembers its
    `base_lr`. Its `lr`, which `set_rates` sets, is a 0-D tensor on the device, so that no step reads or bakes it in.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parameters: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "encoder" if name.startswith("encoder.") else "decoder"
            decays = parameter.ndim > 1 and id(parameter) not in embeddings
            parameters.setdefault((part, decays), []).append(parameter)
    rates = {"encoder": config.encoder_lr or config.lr, "decoder": config.lr}
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


def rate_on(device: torch.device, rate: float) -> Tensor:
    """A rate or a factor of rates as a 0-D tensor: float64 on a CPU, float32 elsewhere, as fused updates read it."""
    return torch.full((), rate, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)


def set_rates(groups: list[dict[str, Any]], rate: Tensor) -> None:
    """Set each group's learning rate to its base times `rate` (0-D)."""
    for group in groups:
        group["lr"].fill_(group["base_lr"] * rate)


def base_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Learning rates of the groups before the schedule: `lr`, and `encoder_lr` where the encoder trains."""
    rates = {group["name"].removesuffix("_no_decay"): group["base_lr"] for group in groups}
    return {name: rates[part] for name, part in {"lr": "decoder", "encoder_lr": "encoder"}.items() if part in rates}
