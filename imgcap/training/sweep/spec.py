"""What a sweep tries: a YAML file of a base configuration, fixed overrides, and the values of a few keys."""

import itertools
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from imgcap.config.load import load_config
from imgcap.config.mistakes import explain
from imgcap.config.run import Config
from imgcap.config.section import LocalPath, Positive, Section
from imgcap.config.yaml_file import read_yaml
from imgcap.errors import UserError

Value = bool | int | float | str


class Parameter(Section):
    """Values that a key may take: some choices, or all from `low` to `high`, whole numbers where both are whole."""

    choices: tuple[Value, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False  # small values as likely as large ones
    step: Positive | None = None  # of whole numbers

    @field_validator("choices", "low", "high", mode="before")
    @classmethod
    def _read_numbers(cls, value: Any) -> Any:
        """Read numbers that YAML 1.1 takes for text, such as 1e-4."""
        return [_number(one) for one in value] if isinstance(value, list) else _number(value)

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        if self.choices is not None:
            if not self.choices or {self.low, self.high, self.step} != {None} or self.log:
                raise ValueError("choices are a list of values, without low, high, log and step")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("write choices: [...], or low: and high: with low below high")
        elif self.log and (self.low <= 0 or self.step):
            raise ValueError("with log, low must be above 0 and there is no step")
        elif self.step and not self.is_whole:
            raise ValueError("step is for whole numbers")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def examples(self) -> tuple[Value, ...]:
        """All choices of the key, or both ends of its range."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        return self.low, self.high


class SweepConfig(Section):
    name: str
    base: LocalPath  # a run's configuration
    overrides: Annotated[dict[str, Any], Field(default_factory=dict)]  # of all trials
    parameters: dict[str, Parameter]
    trials: Positive | None = None  # none: every combination of the choices, once
    epochs: Positive | None = None  # of a trial; none: what the base has
    objective: Literal["CIDEr", "BLEU-4", "loss"] = "CIDEr"  # the best of a trial's evaluations
    pruner: Literal["median", "halving", "none"] = "median"
    startup: Annotated[int, Field(ge=0)] = 4  # trials that end before the median prunes

    @model_validator(mode="after")
    def _check(self) -> "SweepConfig":
        if not self.parameters:
            raise ValueError("parameters holds no key; name one, for example optim.lr")
        if self.trials is None and any(parameter.choices is None for parameter in self.parameters.values()):
            raise ValueError("trials is missing; without it every parameter must have choices, of which all are tried")
        return self

    @property
    def combinations(self) -> list[dict[str, Value]]:
        """Every combination of the choices, or of the ends."""
        names, values = list(self.parameters), [parameter.examples for parameter in self.parameters.values()]
        return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]

    @property
    def total(self) -> int:
        return self.trials or len(self.combinations)

    @property
    def lower_is_better(self) -> bool:
        return self.objective == "loss"

    def overrides_of(self, values: dict[str, Value], run: Path) -> list[str]:
        """Overrides that follow the configuration in a trial's command."""
        own = {"run_dir": str(run), "train.early_stopping.metric": self.objective}
        epochs = {} if self.epochs is None else {"train.epochs": self.epochs}
        return [f"{key}={json.dumps(value)}" for key, value in (self.overrides | epochs | own | values).items()]


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep's YAML file; UserError where it, or the configuration of a trial, has a mistake."""
    try:
        given = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"there is no sweep {path}; those that come with imgcap are in tools/sweeps") from None
    try:
        sweep = SweepConfig.model_validate(given.plain)
    except ValidationError as error:
        raise UserError(explain(error, SweepConfig, given)) from None
    for values in sweep.combinations:
        metrics = load_config(sweep.base, sweep.overrides_of(values, Path("run"))).eval.metrics
        needed = {"CIDEr": "CIDEr", "BLEU-4": "BLEU"}.get(sweep.objective)
        if needed and needed not in metrics:
            raise UserError(f"{path}: objective is {sweep.objective}, so eval.metrics must hold {needed}")
    return sweep


def objective_name(sweep: SweepConfig) -> str:
    """The objective's name in a trial's `metrics.jsonl`."""
    config: Config = load_config(sweep.base, sweep.overrides_of({}, Path("run")))
    return f"{config.eval.split}/{sweep.objective}"


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value
