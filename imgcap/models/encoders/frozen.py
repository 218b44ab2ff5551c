"""Stages of a network that cost less: frozen ones with BatchNorm folded in, trainable ones that keep no activations."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import StochasticDepth


def folded(part: nn.Module) -> nn.Module:
    """A copy of a part of a network, each BatchNorm folded into the convolution before it, where that is exact."""
    copy = deepcopy(part).eval()
    for module in list(copy.modules()):
        children = dict(module.named_children())
        pairs = list(pairwise(children)) if isinstance(module, nn.Sequential) else []  # they run in this order
        if isinstance(module, BasicBlock | Bottleneck):
            pairs = [(f"conv{number}", f"bn{number}") for number in range(1, 4) if f"conv{number}" in children]
        for convolution, norm in pairs:
            before, after = children[convolution], children[norm]
            if not isinstance(before, nn.Conv2d) or type(after) is not nn.BatchNorm2d:  # timm's own holds an activation
                continue
            setattr(module, convolution, fuse_conv_bn_eval(before, after))
            setattr(module, norm, nn.Identity())
    return copy.requires_grad_(False).to(memory_format=torch.channels_last)


def drops(network: nn.Module) -> str | None:
    """Name a module that draws at random in training, if there is one."""
    for name, module in network.named_modules():
        if "Drop" in type(module).__name__ or isinstance(module, StochasticDepth):
            rates = (getattr(module, rate, 0) for rate in ("p", "prob", "drop_prob"))
            if any(rates):
                return f"{type(module).__name__} {name}"
    return None


def recomputed(stage: nn.Module, features: Tensor) -> Tensor:
    """Run a stage that keeps its input only, and is run again in the backward pass (Chen et al. 2016).

    It draws nothing at random: a generator's state, which a captured step can't read, is not kept.
    """
    contexts = lambda: (nullcontext(), _statistics_kept(stage))  # noqa: E731
    return checkpoint(stage, features, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


@contextmanager
def _statistics_kept(stage: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics as they are: they have seen the batch in the forward pass."""
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    counts = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    kept = [norm.momentum for norm in norms], [count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept[0], strict=True):
            norm.momentum = momentum
        for count, value in zip(counts, kept[1], strict=True):
            count.copy_(value)
