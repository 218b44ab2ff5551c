"""The model that self-critical training began with, kept to say how far training has gone from it.

Dimensions: B images, S samples of each, L words of the longest caption, T = L tokens from <sos> on.
"""

from pathlib import Path

import safetensors.torch
from torch import Tensor

from imgcap.checkpoint.save import without_sharing
from imgcap.errors import UserError, reason_of
from imgcap.files.durable import write_whole
from imgcap.models.captioner import Captioner
from imgcap.ranks.collectives import on_main
from imgcap.training.objectives.self_critical import SelfCritical
from imgcap.types import Sampled

FILE = "start.safetensors"  # of a run's folder


class StartModel:
    """An objective with the weights that a run had before its first self-critical step; nothing of it trains."""

    def __init__(self, objective: SelfCritical, run: Path):
        self.objective, self.path = objective.eval().requires_grad_(False), run / FILE

    def keep(self, whole: Captioner) -> None:
        """Take the weights of a run at its first self-critical step, and write them for a resumed one."""
        weights = whole.state_dict()
        self.objective.captioner.load_state_dict(weights)
        on_main(lambda: write_whole(self.path, safetensors.torch.save(without_sharing(weights))))

    def take_up(self) -> None:
        """Take the weights that an earlier start of the run wrote; UserError where they can't be had."""
        device = self.objective.captioner.decoder.output.bias.device
        try:
            weights = safetensors.torch.load_file(self.path, device=str(device))
            self.objective.captioner.load_state_dict(weights)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{self.path}, the model that this run's self-critical steps began with, can't be read "
                f"({reason_of(error)}); train.self_critical.kl needs it: put it back, or leave kl out"
            ) from None

    def divergence(self, model: SelfCritical, batch: Sampled) -> Tensor:
        """Each caption's log P less what it was at the start, (B, S): its mean over captions is the KL divergence."""
        self.objective.thinned.kept_ND = model.thinned.kept_ND
        return model.log_probs(batch) - self.objective.log_probs(batch)
