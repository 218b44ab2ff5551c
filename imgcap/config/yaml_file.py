"""YAML as people write it: each value with the line it stands in, and a mistake in one line that names it."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from imgcap.errors import UserError

COMMAND_LINE = "the command line"
_MERGE, _KNOWN_TAGS = "tag:yaml.org,2002:merge", set(yaml.SafeLoader.yaml_constructors)
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Given:
    """A value as it was given, and where: `FILE:LINE`, or the command line.

    `content` is a map of names to values, a list of values, or the text of a single value, before anybody decides what
    it means: 007 is a number to one key and a name to another. `meaning` is what YAML takes that text for.
    """

    content: "dict[str, Given] | list[Given] | str"
    where: str
    meaning: Any = None

    @property
    def plain(self) -> Any:
        """The value as YAML reads it."""
        if isinstance(self.content, dict):
            return {name: below.plain for name, below in self.content.items()}
        if isinstance(self.content, list):
            return [item.plain for item in self.content]
        return self.meaning

    @property
    def place(self) -> str:
        """Where it was given, as a sentence has it."""
        return f"on {self.where}" if self.where == COMMAND_LINE else f"in {self.where}"

    @property
    def is_null(self) -> bool:
        return isinstance(self.content, str) and self.meaning is None

    def over(self, base: "Given") -> "Given":
        """Lay this value over another one: maps are merged, lists and single values replaced, and {} empties a map."""
        if not (isinstance(self.content, dict) and isinstance(base.content, dict) and self.content):
            return self
        merged = {name: value.over(base.content.get(name, value)) for name, value in self.content.items()}
        return replace(self, content=base.content | merged)

    def places(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Yield the dotted name and the place of every value that isn't a map with something in it."""
        if isinstance(self.content, dict) and self.content:
            for name, below in self.content.items():
                yield from below.places(f"{prefix}.{name}" if prefix else name)
        elif prefix:
            yield prefix, self.where


def read_yaml(path: Path) -> Given:
    """Read a file that holds a map, or nothing. Raises `UserError` naming file and line, FileNotFoundError for none."""
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name the YAML file in it") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    try:
        text = data.decode("utf-16" if data.startswith(_BOMS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line} holds bytes that are no text in UTF-8 ({data[error.start : error.start + 4]!r}); "
            "name a YAML file, or save this one as UTF-8"
        ) from None
    tree = parse(text, str(path), lines=True)
    if tree.is_null:
        return Given({}, str(path))
    if not isinstance(tree.content, dict):
        found = "a list" if isinstance(tree.content, list) else f"the text {tree.content[:40]!r}"
        raise UserError(f"{path} holds {found} at its top; write a map of keys to values there, as in name: mine")
    return tree


def parse(text: str, where: str, lines: bool = False) -> Given:
    """Read YAML. With `lines`, `where` is a file, and each place its name and line."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return Given("", where) if node is None else _Reading(loader, where, lines).value(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        problem = " ".join((error.problem or str(error)).split())
        if "'\\t'" in problem:
            raise UserError(f"{_place(where, line, lines)} begins with a tab; indent by spaces") from None
        raise UserError(
            f"{_place(where, line, lines)} is no YAML ({problem}); look at colons, brackets, quotes, indents"
        ) from None
    except yaml.reader.ReaderError as error:
        line, code = text.count("\n", 0, error.position), ord(text[error.position])
        raise UserError(
            f"{_place(where, line, lines)} holds a character that YAML doesn't allow (U+{code:04X})"
        ) from None
    except RecursionError:
        raise UserError(f"{where} holds itself, or is nested too deep; write its values out") from None


class _Reading:
    """Turns YAML's nodes into `Given`, and refuses a key that stands twice."""

    def __init__(self, loader: yaml.SafeLoader, where: str, lines: bool):
        self.loader, self.where, self.lines = loader, where, lines

    def value(self, node: yaml.Node, key: str = "", place: str = "") -> Given:
        place = place or self.place(node)
        if node.tag not in _KNOWN_TAGS:
            raise UserError(f"{place}: the tag {node.tag} means nothing here; leave it out")
        if isinstance(node, yaml.MappingNode):
            return Given(self.entries(node, key), place)
        if isinstance(node, yaml.SequenceNode):
            return Given([self.value(item, key) for item in node.value], place)
        try:
            meaning = self.loader.construct_object(node)
        except ValueError:  # what looks like a date and is none
            meaning = node.value
        return Given(_whole(node.value), place, _whole(meaning))

    def entries(self, node: yaml.MappingNode, key: str) -> dict[str, Given]:
        found: dict[str, Given] = {}
        merged: dict[str, Given] = {}
        for name_node, below in node.value:
            if name_node.tag == _MERGE:
                for each in below.value if isinstance(below, yaml.SequenceNode) else [below]:
                    merged = {**self.entries(each, key), **merged} if isinstance(each, yaml.MappingNode) else merged
                continue
            place, name = self.place(name_node), _whole(name_node.value)
            if not isinstance(name_node, yaml.ScalarNode):
                raise UserError(f"{place}: a list or a map is no name of a key; look at its brackets")
            dotted = f"{key}.{name}" if key else name
            if name in found:
                lines = dict.fromkeys([found[name].where.rpartition(":")[2], str(name_node.start_mark.line + 1)])
                where = f", in line {' and line '.join(lines)}" if self.lines else ""
                raise UserError(f"{self.where} gives {dotted} twice{where}; keep one of them")
            found[name] = self.value(below, dotted, place)
        return merged | found

    def place(self, node: yaml.Node) -> str:
        return _place(self.where, node.start_mark.line, self.lines)


def _place(where: str, line: int, lines: bool) -> str:
    return f"{where}:{line + 1}" if lines else where


def _whole(text: Any) -> Any:
    """Join the two halves that JSON writes a character beyond U+FFFF in, which YAML takes for two."""
    if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
