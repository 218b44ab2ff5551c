"""What training minimises and how: losses, parameter groups, schedules, the coins of scheduled sampling."""

from imgcap.optim.coins import coins
from imgcap.optim.ema import WeightAverage
from imgcap.optim.groups import build_optimizer, learning_rates
from imgcap.optim.learning_rate import LearningRate
from imgcap.optim.losses import Loss, caption_loss, token_accuracy
from imgcap.optim.teacher_forcing import teacher_forcing_ratio

__all__ = [
    "LearningRate",
    "Loss",
    "WeightAverage",
    "build_optimizer",
    "caption_loss",
    "coins",
    "learning_rates",
    "teacher_forcing_ratio",
    "token_accuracy",
]
