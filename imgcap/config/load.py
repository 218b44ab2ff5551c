"""Reading YAML files and dotted overrides into a checked `Config`, and writing it back."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from imgcap.config.run import Config
from imgcap.config.section import Section, sections_in
from imgcap.errors import UserError, nearest


def load_config(path: Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file (none: all defaults) and apply `dotted.key=value` overrides, values in YAML.

    A file without `name:` gives its own. Raises `UserError` for a file that can't be read, an unknown key (naming the
    nearest) and a value that doesn't fit.
    """
    tree: dict[str, Any] = {"name": path.stem} | _read_yaml(path) if path else {}
    for override in overrides or []:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        given = [override.partition("=")[0] for override in overrides or []]
        raise UserError("; ".join(_explain(e, path, given) for e in error.errors())) from None


def as_yaml(config: Config) -> str:
    """Write every key of a resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def known_key(key: str) -> str:
    """Return a dotted key; `UserError` names the nearest where the configuration has none of that name."""
    if key not in _dotted_keys(Config):
        raise UserError(f"there is no key {key}; the nearest valid one is {_nearest(key)}")
    return key


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no configuration file {path}; name a file, or one of imgcap's own, as flickr8k") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML: {error}") from None
    if not isinstance(tree, dict | None):
        raise UserError(f"{path} holds a {type(tree).__name__}; a configuration is a mapping of keys to values")
    return tree or {}


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"{override!r} is no override; write key=value, for example train.epochs=3")
    *parents, leaf = dotted.split(".")
    for parent in parents:
        below = tree.get(parent)
        tree[parent] = below if isinstance(below, dict) else {}
        tree = tree[parent]
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"the value of {dotted} can't be read as YAML: {error}") from None


def _explain(error: Any, path: Path | None, given: list[str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    overridden = any(key == name or key.startswith(f"{name}.") for name in given)
    where = path if path and not overridden else "the command line"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key} in {where}; the nearest valid one is {_nearest(key)}"
    message, found = error["msg"].removeprefix("Value error, "), error["input"]
    if isinstance(found, Mapping):  # a check of a whole section names the keys itself
        return f"{where}: {message}"
    return f"{key} in {where}: {message}, found {found!r}"


def _nearest(key: str) -> str:
    """Find the valid key that a wrong one is most like, by its last part or else by its full name."""
    valid = list(dict.fromkeys(_dotted_keys(Config)))
    leaf = key.rpartition(".")[2]
    by_leaf = difflib.get_close_matches(leaf, [name.rpartition(".")[2] for name in valid], n=1, cutoff=0.8)
    same_leaf = [name for name in valid if name.rpartition(".")[2] in by_leaf]
    return nearest(key, same_leaf or valid)


def _dotted_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for below in sections_in(field.annotation):
            yield from _dotted_keys(below, f"{prefix}{name}.")
