"""What a sweep found: a table, as Markdown and CSV, and a plot of the objective against each parameter."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from imgcap.files.durable import write_whole
from imgcap.training.monitor.curves import COLOURS, INK, as_png, dress, sheet
from imgcap.training.sweep.spec import Parameter, SweepConfig, Value
from imgcap.training.sweep.trial import State


@dataclass(frozen=True)
class Result:
    """A trial that has ended; `objective` is the best of its evaluations, if it had any."""

    number: int
    state: State
    values: dict[str, Value]
    objective: float | None
    evaluations: int
    seconds: float
    reason: str


def write_report(folder: Path, config: SweepConfig, results: Sequence[Result]) -> None:
    """Write table.md, table.csv and parameters.png, each whole. Complete trials come first, the best at the top."""
    ordered = sorted(results, key=lambda result: _place(result, config.lower_is_better))
    header = [config.objective, *config.parameters, "state", "evaluations", "minutes", "trial", "note"]
    rows = [_row(result, config) for result in ordered]
    write_whole(folder / "table.csv", _csv(header, rows))
    write_whole(folder / "table.md", _markdown(config, header, rows))
    write_whole(folder / "parameters.png", _drawn(config, ordered))


def _place(result: Result, lower_is_better: bool) -> tuple[int, float]:
    objective = math.inf if result.objective is None else result.objective
    rank = ("complete", "pruned", "failed").index(result.state)
    return rank, objective if lower_is_better or result.objective is None else -objective


def _row(result: Result, config: SweepConfig) -> list[str]:
    objective = "" if result.objective is None else f"{result.objective:.4f}"
    values = [shown(result.values.get(name, "")) for name in config.parameters]
    minutes = f"{result.seconds / 60:.1f}"
    return [objective, *values, result.state, str(result.evaluations), minutes, f"{result.number:04d}", result.reason]


def shown(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(header: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _markdown(config: SweepConfig, header: list[str], rows: list[list[str]]) -> str:
    lines = [f"# {config.name}", "", f"{len(rows)} of {config.total} trials of `{config.base}`, best first.", ""]
    for cells in [header, ["---"] * len(header), *rows]:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _drawn(config: SweepConfig, ordered: Sequence[Result]) -> bytes:
    """A panel for each parameter, with a dot for each trial that has a value."""
    figure, charts = sheet(len(config.parameters), height=3.4)
    for axes, (name, parameter) in zip(charts, config.parameters.items(), strict=True):
        _panel(axes, name, parameter, ordered)
        axes.set_ylabel(config.objective, fontsize=8.5, color=INK)
    return as_png(figure)


def _panel(axes: Axes, name: str, parameter: Parameter, results: Sequence[Result]) -> None:
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in parameter.examples)
    names = [str(value) for value in parameter.examples]
    for number, result in enumerate(results):
        if result.objective is None:
            continue
        value = result.values[name]
        x = value if numeric else names.index(str(value))
        whole = result.state == "complete"
        face = (COLOURS[1] if number == 0 else COLOURS[0]) if whole else "none"  # the best; the others; pruned
        axes.scatter([x], [result.objective], s=34, facecolor=face, edgecolor=face if whole else COLOURS[7], zorder=3)
    numbers = [float(value) for value in parameter.examples] if numeric else []
    if numeric and (parameter.log or (min(numbers) > 0 and max(numbers) >= 30 * min(numbers))):
        axes.set_xscale("log")
    elif not numeric:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    dress(axes, name)
    axes.margins(x=0.06, y=0.12)
