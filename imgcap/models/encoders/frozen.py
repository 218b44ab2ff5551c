"""Stages of a network that cost less: frozen ones with BatchNorm folded in, trainable ones that keep no activations."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint


def fold_stage(network: nn.Module, stage: tuple[str, ...]) -> nn.Sequential:
    """A copy of some of a network's modules, each BatchNorm folded into the convolution before it."""
    copy = deepcopy(nn.Sequential(OrderedDict((name, getattr(network, name)) for name in stage))).eval()
    for module in list(copy.modules()):
        children = dict(module.named_children())
        pairs = [(name, name.replace("conv", "bn")) for name in children if name.startswith("conv")]
        if isinstance(module, nn.Sequential) and len(children) == 2 and isinstance(children.get("1"), nn.BatchNorm2d):
            pairs = [("0", "1")]  # the convolution of a shortcut
        for convolution, norm in pairs:
            before, after = children[convolution], children[norm]
            assert isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)
            setattr(module, convolution, fuse_conv_bn_eval(before, after))
            setattr(module, norm, nn.Identity())
    return copy.requires_grad_(False).to(memory_format=torch.channels_last)


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
