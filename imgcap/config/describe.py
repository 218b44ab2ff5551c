"""The reference of every key, with type, default and meaning: as text, as a page of docs, as a JSON schema."""

import json
import textwrap
from collections.abc import Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imgcap.config.load import as_yaml, load_config
from imgcap.config.model import DECODERS, DEFAULT_DECODER
from imgcap.config.run import Config
from imgcap.config.section import Section, sections_in

_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
WIDTHS = (31, 15, 22, 46)  # of the columns of `as_text`: key, default, values, meaning
_INTRODUCTION = """\
# Configuration

Every key, its default and its meaning. A file names the keys that differ from their defaults, and overrides on the
command line win over it: `imgcap train --config configs/demo.yaml optim.lr=1e-3`. An unknown key is refused,
naming the nearest valid one. Each run keeps the whole of its configuration in `config.yaml`.

Editors complete and check these files by [config.schema.json](config.schema.json); for one with yaml-language-server,
begin the file with `# yaml-language-server: $schema=PATH/TO/config.schema.json`.

A duration is a number of steps (`500`) or of epochs (`2ep`, `0.5ep`). A heading with a name in brackets has the keys
that are for this `type` alone. What decoding can do beyond the section `eval` is in [decoding.md](decoding.md).
"""


class Key(NamedTuple):
    """A key of the reference; `values` are choices or a range."""

    name: str
    type: str
    default: str
    meaning: str
    values: str

    @property
    def section(self) -> str:
        """The section that holds the key, with the section's type if only one type has the key."""
        name, _, of_type = self.name.partition(" ")
        return f"{name.rpartition('.')[0]} {of_type}".strip()


def config_text(path: Path | None, overrides: list[str], schema: bool = False) -> str:
    """Write what `imgcap config` prints: the reference, the JSON schema, or the resolved configuration of a file."""
    if schema:
        return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    if path is None and not overrides:
        return as_text()
    return as_yaml(load_config(path, overrides))


def reference() -> list[Key]:
    """List every key that holds a value, in the order of a resolved file."""
    return list(_keys(Config, ""))


def as_text() -> str:
    """Write the reference in aligned columns, a block a section."""
    lines = [_row("KEY", "DEFAULT", "VALUES", "MEANING")]
    for section, keys in groupby(reference(), key=lambda key: key.section):
        lines += ["", section or "the run"]
        lines += (_row(key.name.split()[0], key.default, key.values or key.type, key.meaning) for key in keys)
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """Write the page docs/configuration.md: a table a section, a row a key."""
    parts = [_INTRODUCTION]
    for section, keys in groupby(reference(), key=lambda key: key.section):
        parts += [f"## {section or 'The run'}", "", "| key | type | values | default | meaning |", "|---" * 5 + "|"]
        for key in keys:
            cells = (f"`{key.name.split()[0]}`", key.type, key.values, f"`{key.default}`", key.meaning)
            parts.append(f"| {' | '.join(cell.replace('|', ',') for cell in cells)} |")
        parts.append("")
    return "\n".join(parts)


def json_schema() -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of a configuration file, for editors."""
    schema = Config.model_json_schema()
    for name, section in DECODERS.items():
        if name != DEFAULT_DECODER:  # without a type the keys are those of the default's
            schema["$defs"][section.__name__]["required"] = ["type"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(schema)}


def _without_titles(schema: Any) -> Any:
    """Leave pydantic's titles out of a schema: editors show names and descriptions, which they repeat."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"discriminator"} | ({"title"} if isinstance(schema.get("title"), str) else set())
    return {key: _without_titles(value) for key, value in schema.items() if key not in left_out}


def _keys(section: type[Section], prefix: str) -> Iterator[Key]:
    """Yield the plain keys of a section, then those of the sections in it."""
    shown = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        if not sections_in(field.annotation):
            kind, values = _values(shown[name])
            yield Key(prefix + name, kind, _text(field.default), field.description or "", values)
    for name, field in section.model_fields.items():
        below = sections_in(field.annotation)
        if below:
            yield from _keys_by_type(below, f"{prefix}{name}.")


def _keys_by_type(sections: list[type[Section]], prefix: str) -> Iterator[Key]:
    """Yield the keys of sections by type: those that mean the same to all once, others with their type in brackets."""
    if len(sections) == 1:
        yield from _keys(sections[0], prefix)
        return
    types = {section.model_fields["type"].default: section for section in sections}
    meanings = [{name: (of.default, of.description) for name, of in each.model_fields.items()} for each in sections]
    common = {name for name, _ in set.intersection(*(set(each.items()) for each in meanings))}
    meaning = sections[0].model_fields["type"].description or ""
    yield Key(f"{prefix}type", "choice", DEFAULT_DECODER, meaning, ", ".join(types))
    names = [f"{prefix}{name}" for name in common]
    yield from (key for key in _keys(sections[0], prefix) if key.name in names)
    for kind, section in types.items():
        own = (key for key in _keys(section, prefix) if key.name.removeprefix(prefix) not in common | {"type"})
        yield from (key._replace(name=f"{key.name} ({kind})") for key in own)


def _text(default: Any) -> str:
    """Write a default as a file has it; texts without quotes."""
    if isinstance(default, str):
        return default
    value = list(default) if isinstance(default, tuple) else default
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _values(schema: dict[str, Any]) -> tuple[str, str]:
    """Tell the type of a JSON schema in words, and its choices or range."""
    if "anyOf" in schema:
        if schema["anyOf"][-1]["type"] == "null":
            kind, values = _values(schema["anyOf"][0])
            return f"{kind} or null", values
        return "duration", "steps or epochs (2ep)"
    if "const" in schema or "enum" in schema:
        return "choice", ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema["type"] == "array":
        return "list", _values(schema["items"])[1]
    if schema["type"] == "object":
        names = ", ".join(schema.get("propertyNames", {}).get("enum", []))
        of = schema["additionalProperties"]
        kind, values = ("anything", "") if of is True else _values(of)
        held = kind if kind == "duration" else f"{kind} {values}".strip()
        return "mapping", f"{names or 'name'}: {held}"
    if schema.get("format") == "path":
        return "path", ""
    range_ = (f"{word} {schema[bound]:.10g}" for bound, word in _BOUNDS.items() if bound in schema)
    return _TYPES[schema["type"]], ", ".join(range_)


def _row(*cells: str) -> str:
    """Write a row of the reference: a line, or several where a cell is longer than its column."""
    columns = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
        for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    lines = [map(str.ljust, line, WIDTHS) for line in zip_longest(*columns, fillvalue="")]
    return "\n".join("  ".join(line).rstrip() for line in lines)
