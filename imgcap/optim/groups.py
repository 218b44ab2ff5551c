"""The optimiser and its parameter groups."""

from typing import Any

from torch import nn
from torch.optim import AdamW

from imgcap.config.training import OptimConfig

FUSED_DEVICES = ("cpu", "cuda", "mps")


def build_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over the trainable parameters, the encoder's at `encoder_lr`, the others' at `lr`.

    Matrices and convolutions decay; biases, norms and embeddings don't. Each group has a `name` and
    remembers its `base_lr`: the rate of a step is `base_lr` times the schedule's factor.
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
            "lr": rates[part],
            "base_lr": rates[part],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (part, decays), members in parameters.items()
    ]
    fused = all(parameter.device.type in FUSED_DEVICES for members in parameters.values() for parameter in members)
    return AdamW(groups, lr=config.lr, fused=fused)


def learning_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """The rates that the groups have now: `lr`, and `encoder_lr` where the encoder trains."""
    rates = {group["name"].removesuffix("_no_decay"): group["lr"] for group in groups}
    return {name: rates[part] for name, part in {"lr": "decoder", "encoder_lr": "encoder"}.items() if part in rates}
