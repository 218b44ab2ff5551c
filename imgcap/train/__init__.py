"""Training: the loop and the step, and what surrounds them."""

from imgcap.train.assembly import assemble, describe
from imgcap.train.configuration import configure
from imgcap.train.debug import OneBatch, debug_config, overfit_config, overfitted, watch
from imgcap.train.preemption import PREEMPTED_EXIT_CODE, Preempted
from imgcap.train.profile import profiling
from imgcap.train.trainer import Trainer

__all__ = [
    "PREEMPTED_EXIT_CODE",
    "OneBatch",
    "Preempted",
    "Trainer",
    "assemble",
    "configure",
    "debug_config",
    "describe",
    "overfit_config",
    "overfitted",
    "profiling",
    "watch",
]
