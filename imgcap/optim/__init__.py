"""What training minimises and how: losses, parameter groups, schedules, the coins of scheduled sampling."""

from imgcap.optim.coins import coins
from imgcap.optim.groups import build_optimizer
from imgcap.optim.learning_rate import LearningRate
from imgcap.optim.losses import Loss, caption_loss, token_accuracy
from imgcap.optim.teacher_forcing import teacher_forcing_ratio

__all__ = [
    "LearningRate",
    "Loss",
    "build_optimizer",
    "caption_loss",
    "coins",
    "teacher_forcing_ratio",
    "token_accuracy",
]
