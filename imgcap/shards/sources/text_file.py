"""The captions in a value of a dataset's file: what is one, and what is left out."""

import ast
import json
import math
from typing import Any

from imgcap.shards.source import EMPTY, Skipped, fault_of

# What other programs write where a caption is missing.
_NOTHING = {"nan", "none", "null", "na", "n/a", "<na>", "#n/a", "#na"}


def cleaned(caption: str) -> str:
    """Strip a caption of white space at its ends and of half surrogate pairs, which no file can hold."""
    return caption.strip().encode("utf-8", "replace").decode()


def captions_in(value: Any, name: str, skipped: list[Skipped], place: str = "") -> list[str]:
    """Read the captions that a value holds: a text, or a list of texts, as such or written out in a table's cell.

    What is empty, a missing value (`nan`, `None`, `N/A`), no text or too long is skipped under `name`, which stands at
    a `place` such as `captions.csv line 3`. A text that nobody sees is empty.
    """
    found = []
    for caption in _listed(value) or [None]:
        text = cleaned(caption) if isinstance(caption, str) else ""
        if fault := fault_of(text):
            skipped.append(Skipped(name, fault, place))
        elif any(map(str.isprintable, text)) and text.lower() not in _NOTHING:
            found.append(text)
        else:
            nothing = isinstance(caption, str) or caption is None or _is_nan(caption)
            skipped.append(Skipped(name, EMPTY if nothing else "caption that is no text", place))
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
