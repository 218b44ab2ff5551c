"""Reading the text and JSON files that people bring, with errors that say what is wrong where, and how to mend it."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgcap.errors import UserError

AGAIN = "download it again"


def read_text(path: Path) -> str:
    """Read the text of a UTF-8 file, without a byte order mark. Line ends stay as they are."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the file that it holds")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
    except ValueError:  # a NUL in its name
        raise UserError(f"{str(path)!a} is no name of a file; check the path") from None
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "LATIN1"
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}; convert it, "
            f"for example with `iconv -f {encoding} -t UTF-8 {path} > utf8{path.suffix}`, and pass that file"
        ) from None


def lines_of(text: str) -> list[str]:
    """Split a text at line feeds only: a caption may hold U+2028 and other characters that `splitlines` cuts at."""
    text = text.replace("\r\n", "\n")
    return text.replace("\r", " " if "\n" in text else "\n").split("\n")


def read_json(path: Path, mend: str = AGAIN, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read the value that a JSON file holds; `UserError`, which ends in `mend`, where it can't be read.

    `pairs` makes the value of each object out of its names and values, a dict where it is left out.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        if error.msg == "Extra data" and error.lineno > 1:
            raise UserError(
                f"{path} holds more than one JSON value, the second in line {error.lineno}; where each line holds "
                f"one, call the file {path.stem}.jsonl"
            ) from None
        raise UserError(f"{path} is not JSON: {where}; {mend}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be what it is taken for; {mend}") from None
    except ValueError:  # beyond the digits that Python turns into a number
        raise UserError(f"{path} holds a number of thousands of digits; {mend}") from None


def list_in(content: Any, name: str, taken: str) -> list[Any]:
    """The list that an object of a JSON file holds under a name; `UserError`, which begins with `taken`, for none."""
    found = content.get(name) if isinstance(content, dict) else None
    if isinstance(found, list) and found:
        return found
    holds = f"the keys {', '.join(list(content)[:8])}" if isinstance(content, dict) and content else "no object"
    raise UserError(f"{taken}: it needs a list `{name}` with something in it, and holds {holds}; give another file")
