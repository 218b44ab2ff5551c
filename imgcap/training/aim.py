"""What a run trains for: people's captions, and from a step on drawn ones by their rewards."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from imgcap.training.critic import Critic
from imgcap.training.early_stopping import EarlyStopping
from imgcap.training.engines.protocol import Engine, Step
from imgcap.training.meter import Meter
from imgcap.types import Batch

THEN = ",then=cross_entropy"  # behind the objective of a model that goes on without it


@dataclass
class Aim:
    """An objective at each step. `inherited` is what the weights were trained for that a run began with, or went on."""

    inherited: str | None = None  # where that wasn't cross-entropy alone
    critic: Critic | None = None  # of self-critical steps

    def after(self, step: int) -> str | None:
        """What the weights after so many steps were trained for, as scores are signed with it."""
        if self.critic is not None and (signed := self.critic.signed(step)):
            return signed
        return f"{self.inherited.removesuffix(THEN)}{THEN}" if self.inherited else None

    def is_reached(self, stopping: EarlyStopping, step: int) -> bool:
        """Whether early stopping ends the run: not before what it trains for last has begun."""
        if self.critic is not None and not self.critic.has_begun(step):
            return False
        return stopping.should_stop(self.after(step + 1))

    def turned(
        self, step: Step, engine: Engine, meter: Meter, host: list[Batch], number: int, count_correct: bool
    ) -> Step:
        """The step, the `number`-th from 0, or one over drawn captions in its place."""
        if self.critic is None or not self.critic.has_begun(number):
            return step
        if number == self.critic.first:
            meter.drop_losses()  # of true captions, which are no means over drawn ones
        return self.critic.step(engine, step, host, number, count_correct)

    def read(self, step: int, loss: float) -> dict[str, float]:
        """Read what was drawn since the last log, after so many steps; on all ranks. `loss` is the mean of a token."""
        return {} if self.critic is None or not self.critic.has_begun(step - 1) else self.critic.read(loss)

    def state(self, is_main: bool) -> dict[str, Tensor]:
        """What a checkpoint holds of drawn captions; on all ranks."""
        return {} if self.critic is None else {"watched": self.critic.watched.state(is_main)}

    def load_state(self, training: dict[str, Any], is_main: bool) -> None:
        if self.critic is not None and "watched" in training:
            self.critic.watched.load_state(training["watched"], is_main)
