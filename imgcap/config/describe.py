"""The reference of every key, with type, default and meaning: as text, as a page of docs, as a JSON schema."""

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imgcap.config.aliases import ALIASES, ELSEWHERE, aliases_of
from imgcap.config.keys import type_and_values
from imgcap.config.load import config_of, read_given
from imgcap.config.mistakes import allowed
from imgcap.config.model import DECODERS, DEFAULT_DECODER
from imgcap.config.run import Config
from imgcap.config.section import Section, sections_in
from imgcap.config.shipped import shipped_names
from imgcap.config.themes import START_HERE, place_of, theme_of
from imgcap.errors import UserError

WIDTHS = (31, 18, 22, 43)  # of the columns of the text: key, default, values, meaning
_INTRODUCTION = """\
# Configuration

Every key by theme: its default, what it may hold, its meaning. A file names the keys that differ from their defaults,
and overrides on the command line win over it: `imgcap train --config flickr8k optim.lr=1e-3`. A key that there isn't is
refused with the one that is meant; `imgcap config WORD` finds keys by name, meaning, or [what others call
them](#what-others-call-it), and `imgcap config FILE` shows what a run would have, with the place of each value that
isn't a default. Each run keeps the whole of its configuration in `config.yaml`.

| in a file | on the command line | |
|---|---|---|
| `optim: {lr: 1e-3}` | `optim.lr=1e-3` | numbers: `1e-3`, `.5`, `1_000` |
| `data: {shards: ~/shards/mine}` | `data.shards=~/shards/mine` | texts are taken as typed, `~` is the home folder |
| `eval: {metrics: [BLEU, CIDEr]}` | `eval.metrics=BLEU,CIDEr` | lists |
| `eval: {every: 0.5ep}` | `eval.every=500` | durations: steps, or epochs (`2ep`) |
| `train: {unfreeze: {layer4: 1ep}}` | `train.unfreeze.layer4=1ep` | maps |
| `train: {clip_norm: null}` | `train.clip_norm=null` | no value, where a key allows `null` |
| `base: flickr8k` | `--config flickr8k` | a file inherits: from one beside it, or one that comes with imgcap |

A file with `base:` lays its keys over those of another (and that over its own base): maps are merged, lists and values
replaced, `{}` empties a map. A run is called as its file, unless that says `name:`; neither `name` nor `run_dir` is
inherited.

Editors complete and check these files by [config.schema.json](config.schema.json); for one with yaml-language-server,
begin the file with `# yaml-language-server: $schema=PATH/TO/config.schema.json`.
"""
_ELSEWHERE = """\
## What others call it

None of these is taken: the mistake names the key.

| you look for | here |
|---|---|"""


class Key(NamedTuple):
    """A key of the reference; `values` are choices or a range. A key of one type has that in brackets in its name."""

    name: str
    type: str
    default: str
    meaning: str
    values: str

    @property
    def dotted(self) -> str:
        return self.name.split()[0]

    @property
    def heading(self) -> str:
        """The theme that holds the key, with the section's type if only one type has the key."""
        return " ".join([theme_of(self.dotted).title, *self.name.split()[1:]])


def config_text(given: list[str], schema: bool = False) -> str:
    """Write what `imgcap config` prints: the reference, keys that a word finds, or what a file and overrides give."""
    if schema:
        return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    files = [each for each in given if "=" not in each]
    if not given:
        return as_text()
    if files == given and not is_file(files[0]):
        return found_text(files)
    if len(files) > 1:
        raise UserError(f"{files[1]} is no override; write one file, then key=value")
    return resolved(Path(files[0]) if files else None, [each for each in given if "=" in each])


def is_file(text: str) -> bool:
    """Whether a word is meant as a configuration file, or the name of one, rather than to find keys by."""
    return text in shipped_names() or Path(text).is_file() or "/" in text or text.endswith((".yaml", ".yml"))


def reference() -> list[Key]:
    """List every key that holds a value, by theme."""
    return sorted(
        _keys(Config, ""), key=lambda key: (place_of(key.dotted)[0], key.name.split()[1:], place_of(key.dotted))
    )


def resolved(path: Path | None, overrides: list[str]) -> str:
    """Write every key of a configuration as YAML; a comment says where each value that was given comes from."""
    given = read_given(path, overrides)
    tree, places = config_of(given).model_dump(mode="json"), dict(given.places())
    lines: list[str] = []
    names: list[str] = []
    for line in yaml.safe_dump(tree, sort_keys=False, width=10**6).splitlines():
        if entry := re.match(r"^((?:  )*)([\w.]+):", line):
            names = [*names[: len(entry[1]) // 2], entry[2]]
        place = places.get(".".join(names)) if entry else None
        lines.append(f"{line}  # {place}" if place else line)
    return "\n".join(lines) + "\n"


def found_text(words: list[str]) -> str:
    """Write the keys that hold all words in name, meaning, theme, choices or what others call them."""
    found = [key for key in reference() if all(word.lower() in _searched(key) for word in words)]
    if not found:
        said = " ".join(words)
        if said in ELSEWHERE:
            raise UserError(f"{said} is no key; it is {ELSEWHERE[said]}")
        raise UserError(
            f"no key has {said!r} in its name or meaning, and no configuration is called so; try another word, or "
            f"imgcap config, which shows all keys (files by name: {', '.join(shipped_names())})"
        )
    return _table(found)


def as_text() -> str:
    """Write the reference in aligned columns, a block a theme."""
    keys = reference()
    first = [key for name in START_HERE for key in keys if key.name == name]
    head = "Keys that people change most; all of them by theme below. imgcap config WORD finds keys by word."
    return f"{head}\n\n{_table(first, 'start here')}\n{_table(keys)}"


def as_markdown() -> str:
    """Write the page docs/configuration.md: a table a theme, a row a key."""
    keys = reference()
    by_name = {key.name: key for key in keys}
    parts = [_INTRODUCTION, "## Start here", "", "The keys that people change most.", ""]
    parts += [*_markdown_table(by_name[name] for name in START_HERE), ""]
    for heading, group in groupby(keys, key=lambda key: key.heading):
        rows = list(group)
        about = theme_of(rows[0].dotted).about if "(" not in heading else f"With `type: {heading.split('(')[1][:-1]}`."
        parts += [f"## {heading}", "", about, "", *_markdown_table(rows), ""]
    others = [f"| {_quoted(aliases.split())} | `{key}` |" for key, aliases in ALIASES.items()]
    return "\n".join([*parts, _ELSEWHERE, *others, *(f"| `{name}` | {what} |" for name, what in ELSEWHERE.items()), ""])


def json_schema() -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of a configuration file, for editors."""
    schema = Config.model_json_schema()
    schema["properties"] = {"base": {"type": "string", "description": _BASE}} | schema["properties"]
    for name, section in DECODERS.items():
        if name != DEFAULT_DECODER:  # without a type the keys are those of the default's
            schema["$defs"][section.__name__]["required"] = ["type"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(schema)}


_BASE = "file to inherit from, relative to this one, or the name of one that comes with imgcap"


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
            kind, values = type_and_values(shown[name])
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


def _searched(key: Key) -> str:
    """Everything that a word may find a key by, in small letters, with spaces for underscores too."""
    names = f"{key.dotted} {' '.join(aliases_of(key.dotted))}"
    return f"{names} {re.sub('[._]', ' ', names)} {key.heading} {key.values} {key.meaning}".lower()


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _markdown_table(keys: Iterable[Key]) -> Iterator[str]:
    yield from ("| key | default | values | meaning |", "|---" * 4 + "|")
    for key in keys:
        values = allowed(Config, [*key.dotted.split(".")])
        cells = (f"`{key.dotted}`", f"`{key.default}`", values, key.meaning)
        yield f"| {' | '.join(cell.replace('|', ',') for cell in cells)} |"


def _table(keys: Iterable[Key], heading: str | None = None) -> str:
    """Write keys in aligned columns, under their themes or one heading."""
    lines = [_row("KEY", "DEFAULT", "VALUES", "MEANING")]
    for theme, group in groupby(keys, key=lambda key: heading or key.heading):
        lines += ["", theme]
        lines += (_row(key.dotted, key.default, key.values or key.type, key.meaning) for key in group)
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    """Write a row of the reference: a line, or several where a cell is longer than its column."""
    columns = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
        for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    lines = [map(str.ljust, line, WIDTHS) for line in zip_longest(*columns, fillvalue="")]
    return "\n".join("  ".join(line).rstrip() for line in lines)
