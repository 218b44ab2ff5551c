"""Self-critical sequence training (Rennie et al. 2017): captions that the model draws, by what each is worth.

Captions are drawn without gradient; then one pass over all of them, their words known, has their log probabilities.
In both the model is as it is when it captions, with BatchNorm's running statistics, but that the decoder's dropout
leaves units out: in both the same, of all captions of a step. So what the gradient is of is what was drawn from.

Dimensions: B images, S samples of each, K = S and true captions, L words of the longest caption, V vocabulary,
P grid cells, E encoder width, R readout width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imgcap.config.training import TrainConfig
from imgcap.data.keyed_random import coins
from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Frontier, Likeliest, Samples
from imgcap.decoding.search import search
from imgcap.models.captioner import Captioner
from imgcap.models.kernels.dtypes import exact_dtype
from imgcap.models.losses import Head, Loss, caption_loss
from imgcap.models.precision import autocast
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.objectives.thinned import Thinned
from imgcap.types import PAD, SOS, UNK, Batch, Sampled, StepInputs

NEVER = (PAD, SOS, UNK)  # drawn


class Drawn(NamedTuple):
    """Captions of a batch: words, <eos>, <pad>. The images are features where the encoder doesn't train."""

    images_BCHW: Tensor
    samples_BSL: Tensor
    likeliest_BL: Tensor | None  # where they are the baseline


class SelfCritical(CrossEntropy):
    """Minimises, of a `Sampled` batch, the sum of -log P of each drawn caption times its weight; else cross-entropy.

    P is what captions are drawn from: of words that may be drawn, at the temperature of drawing, and of the first
    `longest` tokens, since the <eos> behind these is certain.
    """

    def __init__(self, captioner: Captioner, train: TrainConfig, seed: int, longest: int):
        super().__init__(captioner, train)
        self.drawing, self.seed, self.longest = train.self_critical, seed, longest
        self.thinned = Thinned(captioner.decoder, train.self_critical.dropout)

    @torch.no_grad()
    def draw(self, batch: Batch, step: int) -> Drawn:
        """Draw captions, each word by (seed, step, image, sample, place). In eval mode, with all weights there."""
        device, drawing = batch.images_BCHW.device, self.drawing
        encoder, decoder = self.captioner.encoder, self.captioner.decoder
        assert not decoder.training, "what is drawn from lacks the same units as what the gradient is of"
        self.thinned.draw(self.seed, step, device)
        with autocast(device, self.precision), self.thinned.entered():
            encoder.fold()
            features_BPE = self.encode(batch.images_BCHW)
            constraints = Constraints(torch.tensor(NEVER, device=device))

            def found(frontier: Frontier) -> Tensor:
                searched = search(
                    Ensemble([decoder]), [features_BPE], frontier, constraints, self.longest, 1.0, attention=False
                )
                return searched.tokens_BWL

            coins_BSL = coins(self.seed, step, batch.image_ids, drawing.samples, self.longest)
            samples_BSL = found(Samples(coins_BSL, drawing.temperature))
            likeliest_BL = found(Likeliest(1))[:, 0] if drawing.baseline == "greedy" else None
        trains = encoder.frozen_stages < len(encoder.stages)
        return Drawn(batch.images_BCHW if trains else features_BPE, samples_BSL, likeliest_BL)

    def forward(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        if isinstance(batch, Batch):
            return super().forward(batch, step)
        drawn = self.drawing.samples
        with autocast(batch.images_BCHW.device, self.precision), self.thinned.entered():
            self.captioner.encoder.fold()
            features_BPE = self.encode(batch.images_BCHW)
            readout_BKTR, _ = self.unroll(features_BPE, batch.tokens_BKT, None, False)
        parts = (readout_BKTR, batch.tokens_BKT, batch.weights_BK)
        readout_BSTR, tokens_BST, weights_BS = (x[:, :drawn] for x in parts)
        loss = caption_loss(
            readout_BSTR, self._policy, tokens_BST, 0.0, count_correct=step.count_correct, weights_BK=weights_BS
        )
        if batch.tokens_BKT.shape[1] == drawn:
            return loss
        readout_BKTR, tokens_BKT, weights_BK = (x[:, drawn:] for x in parts)
        true = caption_loss(
            readout_BKTR, self.captioner.decoder.output, tokens_BKT, self.smoothing, weights_BK=weights_BK
        )
        return loss._replace(total=loss.total + true.total)

    @torch.no_grad()
    def log_probs(self, batch: Sampled) -> Tensor:
        """Compute log P of each drawn caption, (B, S): the sums that `forward` weighs."""
        drawn = self.drawing.samples
        with autocast(batch.images_BCHW.device, self.precision), self.thinned.entered():
            self.captioner.encoder.fold()
            features_BPE = self.encode(batch.images_BCHW)
            tokens_BST = batch.tokens_BKT[:, :drawn]
            readout_BSTR, _ = self.unroll(features_BPE, tokens_BST, None, False)
        head = self._policy
        found = []
        for readout_BTR, tokens_BT in zip(readout_BSTR.unbind(1), tokens_BST.unbind(1), strict=True):
            logits_BTV = F.linear(readout_BTR, head.weight.to(readout_BTR.dtype), head.bias.to(readout_BTR.dtype))
            loss_BT = F.cross_entropy(
                logits_BTV.transpose(1, 2).to(exact_dtype(logits_BTV.dtype)),
                tokens_BT[:, 1:],
                ignore_index=PAD,
                reduction="none",
            )
            found.append(-loss_BT.sum(1))
        return torch.stack(found, dim=1)

    @property
    def _policy(self) -> Head:
        """The output layer that words are drawn by."""
        head, temperature = self.captioner.decoder.output, self.drawing.temperature
        words_V = torch.arange(len(head.bias), device=head.bias.device)
        never_V = torch.stack([words_V == token for token in NEVER]).any(0)
        divided = head if temperature == 1 else Head(head.weight / temperature, head.bias / temperature)
        return Head(divided.weight, divided.bias.masked_fill(never_V, -torch.inf))
