"""Cross-entropy of the next token, with label smoothing and the attention penalty of Xu et al. 2015."""

import functools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from imgcap.config.training import TrainConfig
from imgcap.errors import is_main_process, reason_of
from imgcap.files.cache import cache_root
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.forcing import unroll
from imgcap.models.losses import Loss, caption_loss
from imgcap.models.precision import autocast
from imgcap.ranks.progress import say, telling
from imgcap.training.objectives.base import Objective
from imgcap.types import Batch, Sampled, StepInputs

# torch's modes that capture graphs of their own overwrite what the next part still reads: `train.capture` is ours.
_MODES = {"auto": "default", "reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}


class CrossEntropy(Objective):
    """Cross-entropy of the encoder and the unrolled decoder, each compiled where it is asked for.

    With `train.compile: auto` that is the encoder on a GPU: its normalisation and sums join its convolutions.
    """

    def __init__(self, captioner: Captioner, train: TrainConfig):
        super().__init__(captioner)
        self.precision, self.smoothing, self.penalty = train.precision, train.label_smoothing, train.attention_penalty
        self.compiling = train.compile
        self._encode: Callable[[Tensor], Tensor] | None = captioner.encode if train.compile == "off" else None
        self.unroll: Callable[..., tuple[Tensor, Tensor | None]] = partial(unroll, captioner.decoder)
        if train.compile not in ("off", "auto"):
            self.unroll = _compiled(self.unroll, train.compile, "the decoder")

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Encode a batch as `Captioner.encode` does, compiled where it is asked for and can be."""
        encoder, by_itself = self.captioner.encoder, self.compiling == "auto"
        if images_BCHW.ndim == 3 or (by_itself and images_BCHW.device.type != "cuda"):  # cached, or nothing to gain
            return self.captioner.encode(images_BCHW)
        recomputes = encoder.recompute and encoder.frozen_stages < len(encoder.stages)
        if recomputes and self._encode != self.captioner.encode:  # torch can't compile what has statistics of its own
            self._stop_compiling("model.encoder.recompute runs its stages again")
        if self._encode is None:  # not before: torch's compiler takes a second to load
            self._encode = _compiled(self.captioner.encode, self.compiling, "the encoder")
        try:
            return self._encode(images_BCHW)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException

            if not (by_itself and isinstance(error, TorchDynamoException)):
                raise
            self._stop_compiling(reason_of(error))  # a machine without a C compiler, say
            return self.captioner.encode(images_BCHW)

    def _stop_compiling(self, reason: str) -> None:
        if is_main_process():
            say(f"train.compile: the encoder is not compiled ({reason})")
        self._encode = self.captioner.encode

    def forward(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        with autocast(batch.images_BCHW.device, self.precision):
            self.captioner.encoder.fold()  # before any compiling, and while all weights are there
            features_BPE = self.encode(batch.images_BCHW)
            readout_BKTR, attention_BKTP = self.unroll(features_BPE, batch.tokens_BKT, step.forcing, bool(self.penalty))
        head = self.captioner.decoder.output
        return caption_loss(
            readout_BKTR, head, batch.tokens_BKT, self.smoothing, attention_BKTP, self.penalty, step.count_correct
        )


def _compiled(function: Callable[..., Any], mode: str, what: str) -> Callable[..., Any]:
    """Compile for batches of one shape; what is compiled is kept on disk, so that the next run begins at once."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))
    compiled, called = torch.compile(function, mode=_MODES.get(mode, mode), dynamic=False), False

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        nonlocal called
        first, called = not called, True
        with telling(f"compiling {what} (train.compile)", first and is_main_process()):
            return compiled(*arguments)

    return call
