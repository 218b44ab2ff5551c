"""The debug mode: one process, a few samples, every shape printed once, anomalies traced."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from imgcap.config import Config
from imgcap.errors import UserError

_DEBUG_KEYS: dict[str, dict[str, Any]] = {
    "data": {"workers": 0},
    "train": {"global_batch": 4, "micro_batch": None, "max_steps": 10, "compile": "off"},
    "eval": {"limit": 4, "batch": 4},
    "log": {"every": "1"},
}


def debug_config(config: Config) -> Config:
    """The same experiment cut down to 10 steps of 4 images, in its own run folder, NAME-debug."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("--debug runs in one process; start it as `python launch/train.py --debug`, without torchrun")
    tree = config.model_dump()
    for section, keys in _DEBUG_KEYS.items():
        tree[section] |= keys
    tree |= {"name": f"{config.name}-debug", "run_dir": config.run_path.with_name(config.run_path.name + "-debug")}
    return Config.model_validate(tree)


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
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_shapes(part) for part in value) + ")"
    return type(value).__name__
