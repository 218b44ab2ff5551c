"""The captioner and its loss as one module: what an engine wraps, so that no weight is read outside its forward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from imgcap.config.training import TrainConfig
from imgcap.engine.precision import autocast
from imgcap.models import Captioner
from imgcap.optim import Loss, caption_loss, token_accuracy
from imgcap.types import Forcing


class Objective(nn.Module):
    """Encoder and unrolled decoder, each compiled where it is asked for, then the loss in the compute precision.

    The captioner itself stays as it was, for evaluation and saving.
    """

    def __init__(self, model: Captioner, train: TrainConfig, device: torch.device):
        super().__init__()
        self.model, self.config, self.device = model, train, device
        self.encode = _compiled(model.encoder.forward, train.compile)
        self.unroll = _compiled(model.decoder.unroll, train.compile)

    def forward(
        self, images_BCHW: torch.Tensor, tokens_BKT: torch.Tensor, forcing: Forcing | None, count_correct: bool
    ) -> tuple[Loss, torch.Tensor]:
        """The loss, and how many tokens were the likeliest and among the five likeliest (zeros where not asked)."""
        with autocast(self.device, self.config.precision):
            self.model.encoder.fold()  # before any compiling, and while all weights are there
            readout_BKTR, attention_BKTP = self.unroll(self.encode(images_BCHW), tokens_BKT, forcing)
        head, smoothing, penalty = self.model.decoder.output, self.config.label_smoothing, self.config.attention_penalty
        loss = caption_loss(readout_BKTR, head, tokens_BKT, smoothing, attention_BKTP, penalty)
        if count_correct:
            return loss, token_accuracy(readout_BKTR, head, tokens_BKT)
        return loss, torch.zeros(2, dtype=torch.int64, device=self.device)


def _compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return function if mode == "off" else torch.compile(function, mode=mode, dynamic=False)
