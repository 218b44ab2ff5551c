"""The form in which engines save their optimiser: whole, float32, by parameter name.

It doesn't say which engine wrote it, nor on how many ranks: each takes from it what it holds itself.

    {"optimizer": {name: {"step": int, "exp_avg": tensor, "exp_avg_sq": tensor}},
     "loss_scale": {"scale": float, "good_steps": int}}
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.optim import Optimizer

from imgcap.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of a model, those with an optimiser's state, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Count the numbers in trainable and in frozen parameters, also where DeepSpeed has divided these among ranks."""
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[parameter.requires_grad] += getattr(parameter, "ds_numel", parameter.numel())
    return counts[True], counts[False]


def check_names(saved: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse an optimiser's state of other parameters. Before the first step there is none, which fits all."""
    other = sorted(set(saved) ^ set(names))
    if saved and other:
        raise UserError(
            f"the checkpoint's optimiser is not of the parameters that this configuration trains ({len(other)} differ, "
            f"{other[0]} first); resume with its model.encoder.train and train.unfreeze, or begin a new run"
        )


def whole_state(optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """State of an optimiser that holds all of each parameter, by the parameters' names."""
    states = {name: optimizer.state.get(parameter) for name, parameter in trainable(model).items()}
    return {
        name: {"step": int(state["step"])} | {moment: state[moment] for moment in MOMENTS}
        for name, state in states.items()
        if state
    }


def load_whole_state(optimizer: Optimizer, model: nn.Module, saved: dict[str, dict[str, Any]]) -> None:
    """Load what `whole_state` returned into an optimiser."""
    parameters = trainable(model)
    for name, values in saved.items():
        # In the memory format of the parameter, which the fused update takes for granted.
        moments = {moment: torch.empty_like(parameters[name]).copy_(values[moment]) for moment in MOMENTS}
        step = torch.tensor(float(values["step"]), device=parameters[name].device)
        optimizer.state[parameters[name]] = {"step": step, **moments}


def share_weights(model: nn.Module) -> None:
    """Give every rank rank 0's weights and buffers, as DDP does where it wraps a model."""
    share_buffers(model)
    _share(parameter.data for parameter in model.parameters())


def share_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers, BatchNorm's statistics."""
    _share(model.buffers())


def _share(tensors: Iterable[Tensor]) -> None:
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)
