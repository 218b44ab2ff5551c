"""The debug mode: one process, a few samples, every shape printed once, anomalies traced."""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from imgcap.config.run import Config
from imgcap.data.loader import reading
from imgcap.errors import UserError
from imgcap.types import Batch

_DEBUG_KEYS: dict[str, dict[str, Any]] = {
    "data": {"workers": 0},
    "train": {
        "global_batch": 4,
        "micro_batch": None,
        "max_steps": 10,
        "compile": "off",
        "capture": "off",
        "objective_from": "0",
    },
    "eval": {"limit": 4, "batch": 4},
    "log": {"every": "1"},
}


_OVERFIT_KEYS: dict[str, dict[str, Any]] = {
    "data": {"workers": 0, "augment": "off", "captions_per_image": 1},
    "train": {
        "micro_batch": None,
        "epochs": 1_000_000,
        "max_steps": 300,
        "compile": "off",
        "label_smoothing": 0.0,
        "attention_penalty": 0.0,
        "teacher_forcing": {},
        "objective": "cross_entropy",
        "objective_from": "0",
        "self_critical": {},
        "early_stopping": {},
    },
    "optim": {"lr": 1e-3, "schedule": "constant", "warmup": "0", "weight_decay": 0.0},
    "eval": {"every": "0", "limit": 4, "batch": 4},
    "checkpoint": {"every": "0"},
    "log": {"every": "20"},
}
OVERFITTED = 0.1  # loss a token, in nats


def debug_config(config: Config) -> Config:
    """Cut an experiment down to 10 steps of 4 images, in a run folder of its own, NAME-debug."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("--debug runs in one process; start it as `imgcap train --debug`, without torchrun")
    return _changed(config, _DEBUG_KEYS, "debug")


def overfit_config(config: Config, images: int) -> Config:
    """Turn an experiment into one on a single batch of `images`, a caption each, in NAME-overfit."""
    keys = _OVERFIT_KEYS | {"train": _OVERFIT_KEYS["train"] | {"global_batch": images}}
    keys["model"] = {"decoder": config.model.decoder.model_dump() | {"dropout": 0.0}}
    return _changed(config, keys, "overfit")


def _changed(config: Config, keys: dict[str, dict[str, Any]], suffix: str) -> Config:
    tree = config.model_dump()
    for section, values in keys.items():
        tree[section] |= values
    run = config.run_path.with_name(f"{config.run_path.name}-{suffix}")
    return Config.model_validate(tree | {"name": f"{config.name}-{suffix}", "run_dir": run})


class OneBatch:
    """Loader that gives the first batch of another one again and again."""

    def __init__(self, loader: Iterable[Batch]):
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        with reading(self.loader) as batches:
            first = Batch(*(tensor.clone() for tensor in next(batches)))
        return itertools.repeat(first)


def overfitted(logged: dict[str, float]) -> str:
    """Say what became of an overfitting. Raises `UserError` where the loss is not near zero."""
    loss = logged["train/loss"]
    if loss > OVERFITTED:
        raise UserError(
            f"--overfit: the loss of one batch is still {loss:.3f} after {_OVERFIT_KEYS['train']['max_steps']} steps "
            f"(a healthy model is below {OVERFITTED}); look at optim.lr, at the encoder's weights, at the captions"
        )
    return f"--overfit: the batch is overfitted, loss {loss:.4f}"


@contextmanager
def watch(model: torch.nn.Module, enabled: bool) -> Iterator[None]:
    """Print the shapes that go into and out of each module, once, and trace the origin of any NaN gradient."""
    if not enabled:
        yield
        return
    hooks = [
        module.register_forward_hook(_PrintShapesOnce(name or "model"))
        for name, module in model.named_modules()
        if name.count(".") <= 1
    ]
    try:
        with torch.autograd.detect_anomaly(check_nan=True):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _PrintShapesOnce:
    def __init__(self, name: str):
        self.name, self.done = name, False

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if not self.done:
            self.done = True
            print(f"{self.name} ({type(module).__name__}): {_shapes(inputs)} -> {_shapes(output)}", file=sys.stderr)


def _shapes(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_shapes(part) for part in value) + ")"
    return type(value).__name__
