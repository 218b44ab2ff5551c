"""Reading the text files of a dataset, with errors that say how to mend them."""

import ast
import codecs
import json
import math
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.source import Skipped

_NOTHING = {"nan", "none", "null", "<na>"}  # what other programs write where a caption is missing


def read_text(path: Path) -> str:
    """Read the text of a UTF-8 file, without a byte order mark. Line ends stay as they are."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file of captions or splits that it holds")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "LATIN1"
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}; convert it, "
            f"for example with `iconv -f {encoding} -t UTF-8 {path} > captions-utf8.txt`, and pass that file"
        ) from None


def lines_of(text: str) -> list[str]:
    """Split a text at line feeds only: a caption may hold U+2028 and other characters that `splitlines` cuts at."""
    text = text.replace("\r\n", "\n")
    return text.replace("\r", " " if "\n" in text else "\n").split("\n")


def read_json(path: Path) -> Any:
    """Read the value that a JSON file holds; `UserError` where it can't be read."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; download it again"
        ) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be an annotation file; download it again") from None


def cleaned(caption: str) -> str:
    """Strip a caption of white space at its ends and of half surrogate pairs, which no file can hold."""
    return caption.strip().encode("utf-8", "replace").decode()


def captions_in(value: Any, name: str, skipped: list[Skipped]) -> list[str]:
    """Read the captions that a value holds: a text, or a list of texts, as such or written out in a table's cell.

    What is empty, a missing value (`nan`, `None`, `null`) or no text is skipped under `name`.
    """
    found = []
    for caption in _listed(value):
        text = cleaned(caption) if isinstance(caption, str) else ""
        if text and text.lower() not in _NOTHING:
            found.append(text)
        else:
            nothing = isinstance(caption, str) or caption is None or _is_nan(caption)
            skipped.append(Skipped(name, "empty caption" if nothing else "caption that is no text"))
    return found


def _listed(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and value.lstrip()[:1] == "[" and value.rstrip()[-1:] == "]":
        for read in (json.loads, ast.literal_eval):  # as pandas and json.dumps write a list into a cell
            try:
                found = read(value.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list) and found and all(isinstance(caption, str) for caption in found):
                return found
    return [value]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
