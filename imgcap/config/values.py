"""What a text becomes for a key: the key's type decides, not YAML, so that a name may be 007, on, or 12:30:00."""

from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from imgcap.config.section import Section, sections_in
from imgcap.config.yaml_file import Given


def as_section(sections: Iterable[type[Section]], given: Given) -> Any:
    """Read a map as one of `sections` takes it; what none of them knows stays as it is, to be refused by name."""
    if given.is_null:
        return {}  # all keys of the section are commented out
    if not isinstance(given.content, dict):
        return given.plain
    known = {name: field for section in sections for name, field in section.model_fields.items()}
    return {
        name: as_value(known[name].annotation, below) if name in known else below.plain
        for name, below in given.content.items()
    }


def as_value(annotation: Any, given: Given) -> Any:
    """Read a value as a key of this type takes it. What doesn't fit is left as it is, for the key's own check."""
    if below := sections_in(annotation):
        return as_section(below, given)
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    kind, optional = kinds[0], len(kinds) < len(_alternatives(annotation))
    of = get_args(kind)
    if isinstance(given.content, dict):
        if get_origin(kind) is not dict:
            return given.plain
        return {name: as_value(of[1], value) for name, value in given.content.items()}
    if isinstance(given.content, list):
        if get_origin(kind) is not tuple:
            return given.plain
        return [as_value(of[0], item) for item in given.content]
    if given.is_null and (optional or kind in (str, Path) or not given.content):
        return None
    if get_origin(kind) is tuple:
        items = given.content.strip("[]()").split(",")
        return [as_value(of[0], Given(item.strip(), given.where, item.strip())) for item in items]
    if get_origin(kind) is Literal:
        by_text = {str(choice): choice for choice in of}
        return by_text.get(given.content, given.plain)
    if kind is int:
        return _whole_number(given.content)
    return given.content if kind in (str, Path, float, bool) else given.plain


def takes_text(annotation: Any) -> bool:
    """Whether a key takes any text: a name, a path, an address."""
    return any(kind in (str, Path) for kind in _alternatives(annotation))


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value may have, without their checks."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _alternatives(each)]
    return [annotation]


def _whole_number(text: str) -> int | str:
    """Read 1000, 1_000 and 1e3; what is no whole number stays a text."""
    for read in (int, float):
        try:
            number = read(text)
        except (ValueError, OverflowError):
            continue
        if number == number // 1:
            return int(number)
    return text
