"""The options of decoding as flags: what each is called, and mistakes told by the flag as it is typed."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imgcap.config.decoding import METHODS, OPTIONS, SHARED, DecodeOptions, Option, OptionMistake
from imgcap.errors import UserError

if TYPE_CHECKING:
    from imgcap.models.trained import LoadedCaptioner

FLAGS = {
    "banned": "--ban",
    "required": "--require",
    "unk": "--allow-unk",
}  # of others their names
OF_CONTENT = ("min_length", "no_repeat_ngram", "unk", "banned", "required")
TYPES: dict[str, dict[str, Any]] = {
    "choice": {"choices": METHODS},
    "words": {"action": "append", "metavar": "WORD"},
    "int": {"type": int, "metavar": "N"},
    "float": {"type": float, "metavar": "X"},
    "bool": {"action": "store_const", "const": True},
}


def add_decoding(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add a flag for each option of decoding, in groups."""
    groups: dict[str, Any] = {}
    actions: list[argparse.Action] = []
    for option in OPTIONS:
        title = "what captions hold" if option.name in OF_CONTENT else "how captions are found"
        if len(option.methods) == 1:
            title = f"--method {option.methods[0]}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        settings = {"dest": option.name, "help": help_of(option), **TYPES[option.type]}
        actions.append(groups[title].add_argument(flag_of(option.name), **settings))
    return actions


def help_of(option: Option) -> str:
    text = option.description.replace("; null: ", "; default: ")
    if option.type == "words":
        return f"{text}; repeatable"
    if option.type == "bool":
        return text.partition("; ")[0]
    default = f"eval.{option.name} of the run" if option.name in SHARED else option.default
    return text if default is None else f"{text} (default: {default})"


def flag_of(name: str) -> str:
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def as_typed(name: str, value: Any = None) -> str:
    """Write a flag as it is typed, with its value if it takes one, and once for each of several words."""
    flag = flag_of(name)
    if value is None or value is True:
        return flag
    if isinstance(value, tuple):
        return " ".join(f"{flag} {shlex.quote(word)}" for word in value)
    return f"{flag} {value:.10g}" if isinstance(value, float) else f"{flag} {value}"


@contextmanager
def told_by_flags() -> Iterator[None]:
    """Tell a mistake in options of decoding by their flags: nobody typed the names that Python has for them."""
    try:
        yield
    except OptionMistake as mistake:
        raise UserError(mistake.told(as_typed)) from None


def with_flags(loaded: "LoadedCaptioner", given: Mapping[str, Any]) -> "LoadedCaptioner":
    """Lay flags over the keys of `eval` by the same names; None is a flag that wasn't given.

    Raises `UserError`, naming the flag, where one is out of range.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    evaluation = loaded.config.eval.model_copy(update=chosen)
    with told_by_flags():
        DecodeOptions.like_evaluation(evaluation)
    return replace(loaded, config=loaded.config.model_copy(update={"eval": evaluation}))
