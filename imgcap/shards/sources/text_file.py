"""Reading the text files of a dataset, with errors that say how to mend them."""

import codecs
import json
from pathlib import Path
from typing import Any

from imgcap.errors import UserError


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
