"""Dropout whose random bits cost a fifth on a CPU, and that can leave the same entries out everywhere instead."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout like `torch.nn.Dropout`'s, with p rounded to a 65,536th on a CPU.

    torch draws one number of its generator for each entry there, one after another; four entries share one here.
    `kept_D`, where it is given, says what stays instead, in training or not: 0 or 1 / (1 - p) for each entry of a
    vector, the same for all vectors (batchwise dropout, Graham et al. 2015).
    """

    kept_D: Tensor | None

    def __init__(self, p: float):
        super().__init__(p)
        self.register_buffer("kept_D", None, persistent=False)

    @property
    def drops(self) -> bool:
        """Whether it drops anything now."""
        return self.p > 0 and (self.training or self.kept_D is not None)

    def forward(self, x: Tensor) -> Tensor:
        if self.kept_D is not None:
            return x * self.kept_D[: x.shape[-1]].to(x.dtype)
        if not self.drops or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))
