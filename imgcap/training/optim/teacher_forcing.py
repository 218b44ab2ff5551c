"""How often the decoder reads the true token in training (scheduled sampling, Bengio et al. 2015)."""

import math

from imgcap.config.training import TeacherForcingConfig

EXPONENTIAL_DECAY = 5.0  # the exponential shape falls to e^-5 before it is stretched to reach its end
SIGMOID_REACH = 5.0  # the sigmoid runs from +5 to -5


def teacher_forcing_ratio(config: TeacherForcingConfig, step: int, total_steps: int) -> float:
    """The probability of the true token: `start` at step 0, `end` from `total_steps` on, both exactly."""
    if config.schedule == "constant":
        return config.start
    progress = min(step / max(total_steps, 1), 1.0)
    if progress == 1.0:
        return config.end
    remaining = _remaining(config.schedule, progress)
    return config.end + (config.start - config.end) * remaining if progress else config.start


def _remaining(schedule: str, progress: float) -> float:
    """Share of the way from `start` to `end` that is still to go: from 1 to 0, stretched to reach both."""
    if schedule == "linear":
        return 1 - progress
    if schedule == "exponential":
        last = math.exp(-EXPONENTIAL_DECAY)
        return (math.exp(-EXPONENTIAL_DECAY * progress) - last) / (1 - last)
    first, last = _sigmoid(SIGMOID_REACH), _sigmoid(-SIGMOID_REACH)
    return (_sigmoid(SIGMOID_REACH * (1 - 2 * progress)) - last) / (first - last)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
