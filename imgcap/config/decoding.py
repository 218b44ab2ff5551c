"""The options of searching or drawing captions: each once, with its range, its meaning and the methods it is for.

Flags, the page's controls and the signature of a score are read from here. docs/decoding.md says when to choose what.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from imgcap.config.mistakes import allowed
from imgcap.config.section import Count, Positive, Section
from imgcap.errors import UserError, nearest
from imgcap.types import SPECIAL_TOKENS, UNK

Method = Literal["beam", "greedy", "sample", "diverse"]
METHODS: tuple[str, ...] = get_args(Method)
LengthPenalty = Annotated[
    float,
    Field(
        ge=0,
        lt=100,  # to that power the longest captions' lengths are still floats
        allow_inf_nan=False,
        description="a caption's score is log P / length ** this; more prefers longer captions",
    ),
]
MinLength = Annotated[int, Field(ge=0, description="words that a caption has at least")]
NoRepeatNgram = Annotated[int, Field(ge=0, description="never the same so many words in a row twice; 0: off")]
Unk = Annotated[
    bool | None,
    Field(description="let captions hold <unk>, which leaves a hole; null: scored ones, of a model by cross-entropy"),
]
Words = Annotated[tuple[str, ...], AfterValidator(lambda words: tuple(dict.fromkeys(words)))]


@dataclass(frozen=True)
class OnlyWith:
    """The mark of an option that means nothing with other methods than these."""

    methods: tuple[str, ...]


SEARCHES, SAMPLE, DIVERSE = OnlyWith(("beam", "diverse")), OnlyWith(("sample",)), OnlyWith(("diverse",))


class Setting(NamedTuple):
    """An option of decoding in a sentence, with a value or without."""

    name: str
    value: Any = None


class OptionMistake(UserError):
    """A mistake in options of decoding: a sentence in parts, so that its settings can be told as they were given."""

    def __init__(self, *parts: str | Setting):
        super().__init__(*parts)

    def __str__(self) -> str:
        return self.told(lambda name, value: name if value is None else f"{name}={value}")

    def told(self, written: Callable[[str, Any], str]) -> str:
        """Tell the mistake with each setting as `written` has it; `str` has them as Python."""
        return "".join(part if isinstance(part, str) else written(*part) for part in self.args)


class SearchConfig(Section):
    """Options of decoding that a run's configuration has, in its section `eval`."""

    beam: Positive = Field(5, description="beams of the search")
    length_penalty: LengthPenalty = 1.0
    min_length: MinLength = 0
    no_repeat_ngram: NoRepeatNgram = 0
    unk: Unk = None


class DecodeOptions(Section):
    """All options of decoding. Scores are log P / length ** length_penalty of the model itself, whatever the method.

    Raises `OptionMistake` where an option is out of range, or means nothing with the method.
    """

    method: Method = Field("beam", description="beam search, greedy, sample (draw words), or diverse beams")
    beam: Annotated[Positive | None, SEARCHES] = Field(None, description="beams of a search")
    best: Annotated[Positive, SEARCHES] = Field(1, description="so many of the best captions of each picture")
    length_penalty: LengthPenalty = 1.0
    min_length: MinLength = 0
    no_repeat_ngram: NoRepeatNgram = 0
    unk: Unk = None
    banned: Words = Field((), description="words that never occur")
    required: Annotated[Words, OnlyWith(("beam", "greedy"))] = Field((), description="words that always occur")
    temperature: Annotated[float, SAMPLE] = Field(
        1.0, gt=0, allow_inf_nan=False, description="below 1 favours likely words, above 1 unlikely ones"
    )
    top_k: Annotated[Positive | None, SAMPLE] = Field(None, description="draw from so many likeliest words; null: all")
    top_p: Annotated[float, SAMPLE] = Field(
        1.0,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="draw from the fewest words that hold so much of the probability",
    )
    samples: Annotated[Positive, SAMPLE] = Field(1, description="captions drawn for each picture")
    seed: Annotated[Count, SAMPLE] = Field(
        0, lt=2**32, description="the same seed draws the same captions of a picture"
    )
    groups: Annotated[Positive | None, DIVERSE] = Field(
        None, description="groups that the beams are divided into; null: one for each beam"
    )
    diversity: Annotated[float, DIVERSE] = Field(
        0.5,
        ge=0,
        allow_inf_nan=False,
        description="log probability that a word costs for each earlier group's beam that chose it",
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            first, *others = map(_mistake, error.errors())
            raise OptionMistake(*first, *(part for other in others for part in ("; ", *other))) from None

    @model_validator(mode="after")
    def _check_together(self) -> "DecodeOptions":
        for option in OPTIONS:
            value = getattr(self, option.name)
            if value != option.default and self.method not in option.methods:
                own, chosen = Setting("method", " or ".join(option.methods)), Setting("method", self.method)
                raise OptionMistake(Setting(option.name, value), " is for ", own, "; leave it out with ", chosen)
        if self.best > self.width:
            told = f" is more than the beam of {self.width}; raise "
            raise OptionMistake(Setting("best", self.best), told, Setting("beam"), f" to {self.best}")
        if self.method == "diverse" and self.width % self.group_count:
            told = f" must divide the beam of {self.width}; change one of them"
            raise OptionMistake(Setting("groups", self.groups), told)
        if self.unk and SPECIAL_TOKENS[UNK] in self.banned:
            raise OptionMistake("<unk> is both banned and allowed; leave it out of ", Setting("banned"))
        both = set(self.banned) & set(self.required)
        if both:
            told = f"{sorted(both)[0]!r} is both banned and required; leave it out of "
            raise OptionMistake(told, Setting("banned"), " or ", Setting("required"))
        return self

    @classmethod
    def like_evaluation(cls, config: SearchConfig, **given: Any) -> "DecodeOptions":
        """Make the options that evaluation has, but for those given; one that is None counts as not given."""
        chosen = {name: value for name, value in given.items() if value is not None}
        method = chosen.get("method", "beam")
        evaluated = {name: getattr(config, name) for name in SHARED if method in methods_of(name)}
        return cls(**(evaluated | chosen))

    @property
    def width(self) -> int:
        """The number of beams of an image, or of samples."""
        if self.method == "sample":
            return self.samples
        return self.beam or (1 if self.method == "greedy" else SearchConfig().beam)

    @property
    def group_count(self) -> int:
        """The number of groups that the beams are divided into."""
        return self.groups or self.width

    @property
    def captions(self) -> int:
        """The number of captions of an image that come back, at most."""
        return self.samples if self.method == "sample" else self.best

    def signed(self) -> dict[str, Any]:
        """The options as a score's signature has them: beam, length penalty and what scoring has otherwise."""
        beam = {"beam": self.width} if self.method in SEARCHES.methods else {}
        others = {option.name: getattr(self, option.name) for option in OPTIONS if option.name not in ("beam", "unk")}
        changed = {name: value for name, value in others.items() if value != type(self).model_fields[name].default}
        return beam | {"length_penalty": self.length_penalty} | changed | ({} if self.unk else {"unk": "never"})


SHARED = tuple(SearchConfig.model_fields)  # the options that begin as the run's evaluation has them


class Option(NamedTuple):
    """An option of decoding as a flag or a control shows it; `words` is the type of a tuple of words."""

    name: str
    type: Literal["choice", "words", "int", "float", "bool"]
    default: Any
    description: str
    methods: tuple[str, ...]
    least: float | None
    above: float | None  # in place of `least` where the range doesn't hold its lower end
    most: float | None


_TYPES: dict[str, Any] = {"string": "choice", "array": "words", "integer": "int", "number": "float", "boolean": "bool"}


def methods_of(name: str) -> tuple[str, ...]:
    """List the methods with which an option means something: all for a name that is no option's."""
    field = DecodeOptions.model_fields.get(name)
    marks = [mark for mark in field.metadata if isinstance(mark, OnlyWith)] if field else []
    return marks[0].methods if marks else METHODS


def _options() -> Iterator[Option]:
    shown = DecodeOptions.model_json_schema()["properties"]
    for name, field in DecodeOptions.model_fields.items():
        values = next(each for each in shown[name].get("anyOf", [shown[name]]) if each["type"] != "null")
        range_ = [values.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum")]
        assert field.description is not None, "a test sees to it"
        yield Option(name, _TYPES[values["type"]], field.default, field.description, methods_of(name), *range_)


OPTIONS = tuple(_options())  # in the order in which they are shown
_REASONS: dict[str, tuple[str | Setting, ...]] = {
    "temperature": ("; for the likeliest word take ", Setting("method", "greedy")),
    "top_p": (" and at most 1, which is all words",),
}


def _mistake(error: Any) -> tuple[str | Setting, ...]:
    """Say what is wrong with an option, in the words of its range."""
    name, value, range_ = error["loc"][0], error["input"], error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        near = nearest(name, DecodeOptions.model_fields)
        return (f"there is no option {name!r} of decoding; the nearest is {near!r}",)
    if name == "method":
        return (f"there is no method {value!r}; choose one of {', '.join(METHODS)}",)
    given, default = Setting(name, value), DecodeOptions.model_fields[name].default
    if error["type"] == "finite_number" and isinstance(default, float):
        return given, f" must be a finite number, such as {default:g}"
    if name in _REASONS and error["type"] in ("greater_than", "less_than_equal"):
        return given, " must be above 0", *_REASONS[name]
    if "ge" in range_:
        return given, f" is too low; it is at least {range_['ge']:g}"
    if "lt" in range_:
        return given, f" is too large; it is below {range_['lt']}"
    return Setting(name, repr(value)), f" is not allowed; it is {allowed(DecodeOptions, [name])}"
