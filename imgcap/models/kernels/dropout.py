"""Dropout whose random bits cost a fifth on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout like `torch.nn.Dropout`'s, with p rounded to a 65,536th on a CPU.

    torch draws one number of its generator for each entry there, one after another; four entries share one here.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape) >= round(self.p * 2**16) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))
