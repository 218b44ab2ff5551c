"""What is wrong with a value, in plain words: the key, what was found and where, and what is allowed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from imgcap.config.aliases import meant_by
from imgcap.config.keys import type_and_values
from imgcap.config.section import Section
from imgcap.config.yaml_file import Given

_SENTENCES = {
    "whole number": "a whole number",
    "number": "a number",
    "true or false": "true or false",
    "choice": "one of",
    "list": "a list of",
    "mapping": "a map of",
    "path": "a path",
    "duration": "a duration:",
}
_KEY = re.compile(r"\b[a-z_]+(?:\.[a-z_]+)+\b|\binit_from\b")


def explain(error: ValidationError, section: type[Section], given: Given) -> str:
    """Tell all mistakes in a line, each with its place."""
    return "; ".join(dict.fromkeys(_sentence(each, section, given) for each in error.errors()))


def allowed(section: type[Section], name: list[str | int]) -> str:
    """Say what a key may hold, such as `a whole number, at least 1`."""
    schema = _schema(section)
    found = list(_schemas_at(schema, name, schema))
    names = dict.fromkeys(key for each in found for key in each.get("properties", ()))
    if names:
        key = ".".join(map(str, [*name, next(iter(names))]))
        return f"a section with keys of its own ({', '.join(names)}), as in {key}: ..."
    if found and all("const" in each for each in found):  # the type of a section that is one of several
        return f"one of {', '.join(each['const'] for each in found)}"
    kind, values = type_and_values(found[0])
    kind, null = kind.removesuffix(" or null"), ", or null" if kind.endswith(" or null") else ""
    joint = ", " if values.startswith("at ") else " "
    sentence = _SENTENCES.get(kind) or " or ".join(_SENTENCES.get(each, each) for each in kind.split(" or "))
    return f"{sentence}{joint}{values}{null}" if values else f"{sentence.removesuffix(' of')}{null}"


@cache
def _schema(section: type[Section]) -> dict[str, Any]:
    return section.model_json_schema()


def _sentence(error: Any, section: type[Section], given: Given) -> str:
    name = list(error["loc"])
    schema = _schema(section)
    while name and (isinstance(name[-1], int) or name[-1] == "[key]" or not any(_schemas_at(schema, name, schema))):
        if error["type"] == "extra_forbidden":
            break
        name.pop()  # an item of a list, the name of a map's entry, one of the types that a value may have
    key, found = ".".join(map(str, name)), _found(name, given)
    if error["type"] == "extra_forbidden":
        return meant_by(key, section, found.place)
    if error["type"] == "missing":
        return f"{found.where} lacks {key}; it is {allowed(section, name)}"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        if not key or (isinstance(error["input"], Mapping) and _KEY.search(message)):  # it names its keys itself
            return f"{_places_of(message, given)}: {message}"
        return f"{key} {found.place}: {message}"
    return f"{key} {found.place} must be {allowed(section, name)}; found {_shown(found)}"


def _found(name: Sequence[str | int], given: Given) -> Given:
    """The value that was given under a name, or the nearest one around it."""
    for part in name:
        if not (isinstance(given.content, dict) and part in given.content):
            break
        given = given.content[part]
    return given


def _shown(given: Given) -> str:
    if isinstance(given.content, dict):
        return "a map of keys" if given.content else "{}"
    if isinstance(given.content, list):
        items = [item.content if isinstance(item.content, str) else "..." for item in given.content]
        return f"[{', '.join(items)}]"
    return repr(given.content) if given.content else "nothing"


def _places_of(message: str, given: Given) -> str:
    """Where the keys that a message names were given."""
    places = {_found(key.split("."), given).where: None for key in _KEY.findall(message) if _is_given(key, given)}
    return " and ".join(places) or given.where


def _is_given(key: str, given: Given) -> bool:
    return any(name == key for name, _ in given.places())


def _schemas_at(schema: dict[str, Any], name: list[str | int], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the JSON schemas of a key: several where its section is one of several."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for each in schema.get("oneOf", []):
        yield from _schemas_at(each, name, root)
    if "oneOf" in schema:
        return
    if not name:
        yield schema
        return
    part, *rest = name
    for each in schema.get("anyOf", [schema]):
        below = each.get("properties", {}).get(part) or each.get("additionalProperties")
        if isinstance(part, int) and "items" in each:
            yield from _schemas_at(each["items"], rest, root)
        elif isinstance(below, dict):
            yield from _schemas_at(below, rest, root)
