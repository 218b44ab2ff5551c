"""Reading YAML files and dotted overrides into a checked `Config`, and writing it back."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from imgcap.config.aliases import meant_by
from imgcap.config.keys import fields_of
from imgcap.config.mistakes import explain
from imgcap.config.model import AttentionLSTMConfig, LSTMConfig
from imgcap.config.run import Config
from imgcap.config.shipped import config_file, shipped_names
from imgcap.config.values import as_section, takes_text
from imgcap.config.yaml_file import COMMAND_LINE, Given, parse, read_yaml
from imgcap.errors import UserError

_OWN = ("name", "run_dir", "base")  # keys that a file doesn't inherit: its run would land in that of its base


def load_config(path: Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file (none: all defaults) and apply `dotted.key=value` overrides, values in YAML.

    A file with `base:` lays its keys over those of another file. One without `name:` is called as the file is.
    Raises `UserError` for a file that can't be read, an unknown key (naming the right one) and a value that doesn't
    fit.
    """
    return config_of(read_given(path, overrides or []))


def read_given(path: Path | None, overrides: list[str]) -> Given:
    """Read what a file, those it inherits from, and overrides give: every value with its place."""
    given = _inherited(config_file(path), []) if path else Given({}, COMMAND_LINE)
    for override in overrides:
        given = _overridden(given, override)
    return given


def config_of(given: Given) -> Config:
    """Check what was given; `UserError` names each mistake with its place."""
    try:
        config = Config.model_validate(as_section([Config], given))
    except ValidationError as error:
        raise UserError(explain(error, Config, given)) from None
    _check_decoder(config, given)
    return config


def known_key(key: str) -> str:
    """Return a dotted key; `UserError` names the right one where the configuration has none of that name."""
    if key not in fields_of(Config):
        raise UserError(meant_by(key, Config, "on the command line"))
    return key


def as_yaml(config: Config) -> str:
    """Write every key of a resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _check_decoder(config: Config, given: Given) -> None:
    """Raise `UserError` for a key that only another decoder has, where somebody wrote it for this one.

    A file's own keys go where an override asks for another type. One LSTM takes the other's keys anywhere, and leaves
    them: files and commands of 0.1.0 have those of both.
    """
    decoder, prefix = config.model.decoder, "model.decoder."
    places = {key.removeprefix(prefix): where for key, where in given.places() if key.startswith(prefix)}
    if "type" not in places and config.init_from is not None:
        return  # the type is that of the model that is gone on with
    file = places.get("type", "").rpartition(":")[0]
    taken = set(type(decoder).model_fields)
    if decoder.type != "transformer":
        taken |= LSTMConfig.model_fields.keys() | AttentionLSTMConfig.model_fields.keys()
    for key, where in places.items():
        if key not in taken and (where == COMMAND_LINE or (file and where.startswith(f"{file}:"))):
            own = ", ".join(name for name in type(decoder).model_fields if name != "type")
            place = Given("", where).place
            raise UserError(f"{prefix}{key} {place} is no key of type={decoder.type}, which has {own}")


def _inherited(path: Path, files: list[Path]) -> Given:
    """Read a file over its base, and that over its own. `files` are those that inherit from this one."""
    if any(path.resolve() == file.resolve() for file in files):
        raise UserError(f"{files[0]} inherits from itself: {' -> '.join(map(str, [*files, path]))}; cut base: in one")
    try:
        given = read_yaml(path)
    except FileNotFoundError:
        raise UserError(_missing(path, files)) from None
    assert isinstance(given.content, dict)
    base, own = given.content.get("base"), {key: value for key, value in given.content.items() if key != "base"}
    if path.suffix in (".yaml", ".yml"):
        own = {"name": Given(path.stem, str(path), path.stem)} | own
    own_given = replace(given, content=own, where=str(path))
    if base is None or base.is_null:
        return own_given
    if not isinstance(base.content, str):
        raise UserError(f"base {base.place} must name one file; found {base.plain}")
    file, shipped = path.parent / os.path.expanduser(base.content), config_file(base.content)
    below = _inherited(shipped if shipped.is_absolute() and not file.is_file() else file, [*files, path])
    assert isinstance(below.content, dict)
    inherited = {key: value for key, value in below.content.items() if key not in _OWN}
    return own_given.over(replace(below, content=inherited)) if own else replace(below, content=inherited)


def _missing(path: Path, files: list[Path]) -> str:
    names, of = shipped_names(), f", the base of {files[-1]}" if files else ""
    close = difflib.get_close_matches(path.stem, names, n=1)
    meant = f"; the nearest that comes with imgcap is {close[0]}, of" if close else "; by name there are"
    return f"no configuration file {path}{of}{meant} {', '.join(names)}"


def _overridden(given: Given, override: str) -> Given:
    """Set the key of an override to its value, whatever was there."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        meant = f"--config {override}" if override in shipped_names() else "key=value, for example train.epochs=3"
        raise UserError(f"{override!r} is no override; write {meant}")
    return _set(given, dotted.split("."), _value_of(dotted, text.strip()))


def _set(given: Given, names: list[str], value: Given) -> Given:
    if not names:
        return value
    below = given.content if isinstance(given.content, dict) else {}
    inner = _set(below.get(names[0], Given({}, COMMAND_LINE)), names[1:], value)
    return Given(below | {names[0]: inner}, given.where)


def _value_of(dotted: str, text: str) -> Given:
    """Read the value of an override; for a key that takes any text it is what was typed."""
    field = fields_of(Config).get(dotted)
    as_typed = field is not None and takes_text(field.annotation)
    if as_typed and not text.startswith(("'", '"')):
        return Given(text, COMMAND_LINE, None if text in ("", "~", "null", "Null", "NULL") else text)
    try:
        return parse(text, COMMAND_LINE)
    except UserError as error:
        if as_typed:
            return Given(text, COMMAND_LINE, text)
        raise UserError(f"the value of {dotted} can't be read: {error}") from None
