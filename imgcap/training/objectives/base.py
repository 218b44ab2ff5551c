"""What a training step minimises, as a module that an engine wraps."""

from torch import nn

from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.types import Batch, Sampled, StepInputs


class Objective(nn.Module):
    """Loss of a captioner. Whatever reads weights is inside of `forward`: only there does ZeRO 3 have them.

    The captioner itself stays as it is, for evaluation and saving.
    """

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    def forward(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        """Compute sums over the batch, which ranks and micro-batches add up. All is on the device, nothing is read."""
        raise NotImplementedError
