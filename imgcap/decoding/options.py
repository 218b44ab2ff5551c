"""Every choice of how captions are searched or drawn, in one object. docs/decoding.md says when to choose what."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from imgcap.config.schema import EvalConfig
from imgcap.errors import UserError

Method = Literal["beam", "greedy", "sample", "diverse"]

_SEARCHES = ("beam", "diverse")
_METHODS_OF: dict[str, tuple[str, ...]] = {  # where an option means something; what is not here, everywhere
    "beam": _SEARCHES,
    "best": _SEARCHES,
    "required": ("beam", "greedy"),
    "temperature": ("sample",),
    "top_k": ("sample",),
    "top_p": ("sample",),
    "samples": ("sample",),
    "seed": ("sample",),
    "groups": ("diverse",),
    "diversity": ("diverse",),
}
_AT_LEAST = {
    "beam": 1,
    "best": 1,
    "length_penalty": 0,
    "min_length": 0,
    "no_repeat_ngram": 0,
    "top_k": 1,
    "samples": 1,
    "seed": 0,
    "groups": 1,
    "diversity": 0,
}


def methods_of(option: str) -> tuple[str, ...]:
    """The methods with which an option means something."""
    return _METHODS_OF.get(option, get_args(Method))


@dataclass(frozen=True)
class DecodeOptions:
    """How to caption. The scores are log P / length ** length_penalty of the model itself, whatever the method.

    Raises `UserError` where an option is out of range, or means nothing with the method.
    """

    method: Method = "beam"
    beam: int | None = None  # none: 5; greedy has 1
    best: int = 1  # captions of each image that a search returns
    length_penalty: float = 1.0
    min_length: int = 0  # words
    no_repeat_ngram: int = 0  # no n words in a row occur twice in a caption; 0: they may
    banned: tuple[str, ...] = ()
    required: tuple[str, ...] = ()  # each occurs in the caption
    temperature: float = 1.0
    top_k: int | None = None  # draw from the k likeliest words
    top_p: float = 1.0  # draw from the fewest words that hold so much of the probability
    samples: int = 1
    seed: int = 0
    groups: int | None = None  # none: as many as beams
    diversity: float = 0.5  # log probability that a word costs for each beam of an earlier group that chose it

    def __post_init__(self) -> None:
        for name in ("banned", "required"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        self._check_ranges()
        for field in fields(self):
            value, methods = getattr(self, field.name), methods_of(field.name)
            if value != field.default and self.method not in methods:
                raise UserError(
                    f"{field.name}={value} is for method={' or '.join(methods)}; leave it out with method={self.method}"
                )
        if self.best > self.width:
            raise UserError(f"best={self.best} is more than the beam of {self.width}; raise beam to {self.best}")
        if self.method == "diverse" and self.width % self.group_count:
            raise UserError(f"groups={self.groups} must divide the beam of {self.width}; change one of them")
        both = set(self.banned) & set(self.required)
        if both:
            raise UserError(f"{sorted(both)[0]!r} is both banned and required; choose one")

    def _check_ranges(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(f"there is no method {self.method!r}; choose one of {', '.join(get_args(Method))}")
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UserError(f"{name}={value} is too low; it is at least {least}")
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"temperature={self.temperature} must be above 0; for the likeliest word take method=greedy"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be above 0 and at most 1, which is all words")
        if self.seed >= 2**32:
            raise UserError(f"seed={self.seed} is too large; it is below 2**32")

    @classmethod
    def like_evaluation(cls, config: EvalConfig, **given: Any) -> "DecodeOptions":
        """As evaluation decodes, but for the options given; one that is None counts as not given."""
        chosen = {name: value for name, value in given.items() if value is not None}
        shared = {name: getattr(config, name) for name in ("length_penalty", "min_length", "no_repeat_ngram")}
        if chosen.get("method", "beam") in _SEARCHES:
            shared["beam"] = config.beam
        return cls(**{**shared, **chosen})

    @property
    def width(self) -> int:
        """Beams of an image, or samples."""
        if self.method == "sample":
            return self.samples
        return self.beam or (1 if self.method == "greedy" else 5)

    @property
    def group_count(self) -> int:
        return self.groups or self.width

    @property
    def captions(self) -> int:
        """Captions of an image that come back, at most."""
        return self.samples if self.method == "sample" else self.best
