"""Scores as people read them: one table, on one scale, wherever they are printed."""

from collections.abc import Iterator, Mapping
from typing import Any

SCALE = (
    "Scores lie between 0 and 1, CIDEr between 0 and 10 as pycocoevalcap gives it. "
    "Papers often print them times 100: 0.438 is their 43.8."
)


def score_table(scores: Mapping[str, Any], title: str = "") -> str:
    """Lay scores out, a line each with three decimals, and say their scale once below.

    A mapping among them (`diversity`, `false_claims`) gives a line for each of its own values.
    """
    numbers_first = sorted(_rows(scores), key=lambda row: not row[1][:1].isdecimal())
    rows = [f"{name:>18}  {value}" for name, value in numbers_first]
    return "\n".join([*([title] if title else []), *rows, *([SCALE] if "signature" in scores else [])])


def shown(score: float) -> str:
    return f"{score:.3f}"


def _rows(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from _rows(value)
        else:
            yield name, shown(value) if isinstance(value, float) else str(value)
