"""Gradual unfreezing (Howard and Ruder 2018): the encoder's stages begin to train one after another, the last first."""

from collections.abc import Callable, Mapping

from imgcap.config.section import steps_of
from imgcap.config.training import Stage
from imgcap.errors import UserError


class Unfreezing:
    """How many of the encoder's stages are frozen at each step: a pure function, so that a resume needs no state."""

    def __init__(
        self, schedule: Mapping[Stage, str], frozen: int, steps_per_epoch: int, frozen_before: Callable[[str], int]
    ):
        """`schedule` is `train.unfreeze`; before it, the first `frozen` stages are frozen.

        `frozen_before` is the encoder's: how many are frozen where a stage and all behind it train.
        """
        self.frozen = frozen
        starts = [
            (steps_of(duration, steps_per_epoch), frozen_before(stage), stage) for stage, duration in schedule.items()
        ]
        self.starts = sorted(starts, key=lambda start: (start[0], -start[1]))
        for start, stages, stage in self.starts:
            if stages >= frozen:
                raise UserError(
                    f"train.unfreeze.{stage}={schedule[stage]}: {stage} trains from before step {start} on; a stage "
                    "trains with all behind it, so give them falling from layer4 to layer1 and all, each later"
                )
            frozen = stages

    def frozen_at(self, step: int) -> int:
        """How many stages are frozen in the update that follows `step` finished ones."""
        return min([self.frozen, *(stages for start, stages, _ in self.starts if start <= step)])
