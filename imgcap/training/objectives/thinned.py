"""A network that lacks the same units while captions are drawn from it and while their gradient is taken.

Dimensions: N dropout layers of the network, D entries of the widest vector.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from imgcap.data.keyed_random import coins
from imgcap.models.kernels.dropout import Dropout


class Thinned:
    """A network of which its dropouts leave the same entries out everywhere, by (seed, step), while it is entered."""

    def __init__(self, network: nn.Module, thins: bool):
        self.dropouts = [part for part in network.modules() if isinstance(part, Dropout) and part.p and thins]
        widest = max(size for parameter in network.parameters() for size in parameter.shape)
        self.kept_ND = torch.ones(len(self.dropouts), widest)  # at one place in memory: captured steps read it

    def draw(self, seed: int, step: int, device: torch.device) -> None:
        """Draw what stays: the same on all ranks, and after a resume."""
        self.kept_ND = self.kept_ND.to(device)
        numbers_N = torch.arange(-1, -1 - len(self.dropouts), -1, device=device)  # as if images had them
        coins_ND = coins(seed, step, numbers_N, 1, self.kept_ND.shape[1])[:, 0]
        p_N1 = torch.tensor([dropout.p for dropout in self.dropouts], device=device)[:, None]
        self.kept_ND.copy_((coins_ND >= p_N1) / (1 - p_N1))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let the network lack the units that were drawn last."""
        for dropout, kept_D in zip(self.dropouts, self.kept_ND, strict=True):
            dropout.kept_D = kept_D
        try:
            yield
        finally:
            for dropout in self.dropouts:
                dropout.kept_D = None
