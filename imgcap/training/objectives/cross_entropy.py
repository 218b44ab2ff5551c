"""Cross-entropy of the next token, with label smoothing and the attention penalty of Xu et al. 2015."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from imgcap.config.training import TrainConfig
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.forcing import unroll
from imgcap.models.losses import Loss, caption_loss
from imgcap.models.precision import autocast
from imgcap.training.objectives.base import Objective
from imgcap.types import Batch, StepInputs


class CrossEntropy(Objective):
    """Cross-entropy of the encoder and the unrolled decoder, each compiled where it is asked for."""

    def __init__(self, captioner: Captioner, train: TrainConfig):
        super().__init__(captioner)
        self.precision, self.smoothing, self.penalty = train.precision, train.label_smoothing, train.attention_penalty
        self.encode = _compiled(captioner.encode, train.compile)
        self.unroll = _compiled(partial(unroll, captioner.decoder), train.compile)

    def forward(self, batch: Batch, step: StepInputs) -> Loss:
        with autocast(batch.images_BCHW.device, self.precision):
            self.captioner.encoder.fold()  # before any compiling, and while all weights are there
            features_BPE = self.encode(batch.images_BCHW)
            readout_BKTR, attention_BKTP = self.unroll(features_BPE, batch.tokens_BKT, step.forcing)
        head = self.captioner.decoder.output
        return caption_loss(
            readout_BKTR, head, batch.tokens_BKT, self.smoothing, attention_BKTP, self.penalty, step.count_correct
        )


def _compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return function if mode == "off" else torch.compile(function, mode=mode, dynamic=False)
