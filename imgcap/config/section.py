"""What every section of the configuration is made of: the frozen base, and the types that several keys share.

A duration is a number of steps (`500`) or of epochs (`2ep`, `0.5ep`); `steps_of` converts it once.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_DURATION = r"^(\d+|\d+(\.\d+)?ep)$"


def _checked_duration(value: str) -> str:
    duration = re.sub(r"(?<=\d)_(?=\d)", "", value)  # 1_000, as YAML has it
    if not re.match(_DURATION, duration):
        raise ValueError(f"{value!r} is no duration; write steps (500) or epochs (2ep)")
    return duration


Duration = Annotated[
    str,
    BeforeValidator(str),
    AfterValidator(_checked_duration),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _DURATION}]}),
]
Place = Annotated[str, AfterValidator(os.path.expanduser)]  # a path, where ~ is the home folder, or an address
LocalPath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
Off = BeforeValidator(lambda value: "off" if value is False else value)  # YAML reads a bare `off` as false
On = BeforeValidator(lambda value: "on" if value is True else value)
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A frozen part of the configuration, with the checks of its keys; a key that it doesn't have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, coerce_numbers_to_str=True)


def sections_in(annotation: Any) -> list[type[Section]]:
    """The sections that a key may hold: none for a plain value, several for a union by `type`."""
    candidates = get_args(annotation) or (annotation,)
    return [each for each in candidates if isinstance(each, type) and issubclass(each, Section)]


def steps_of(duration: str, steps_per_epoch: int) -> int:
    """Convert a duration to whole steps; `0.5ep` of 7 steps is 4 (rounded, at least 1 if not 0)."""
    if not duration.endswith("ep"):
        return int(duration)
    epochs = float(duration[:-2])
    return max(round(epochs * steps_per_epoch), 1) if epochs else 0
