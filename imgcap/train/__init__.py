"""Training: the loop and the step, and what surrounds them."""

from imgcap.train.assembly import assemble, describe
from imgcap.train.debug import debug_config, watch
from imgcap.train.preemption import PREEMPTED_EXIT_CODE, Preempted
from imgcap.train.trainer import Trainer

__all__ = ["PREEMPTED_EXIT_CODE", "Preempted", "Trainer", "assemble", "debug_config", "describe", "watch"]
