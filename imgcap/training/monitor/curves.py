"""`curves.png`: what a run has logged so far, on one sheet."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter

from imgcap.files.durable import write_whole
from imgcap.training.monitor.writers import read_metrics

COLUMNS = 3
COLOURS = ("#2a6fbb", "#d1495b", "#2e933c", "#e59500", "#6f4ea1", "#168aad", "#8a5a44", "#5c677d")
INK, FAINT = "#22272e", "#d5dae1"
SMOOTHED_FROM = 60  # points; fewer are drawn as they are

Series = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Panel:
    """One small chart: the names it draws (their last part, any split), and how."""

    title: str
    names: tuple[str, ...]
    log: bool = False
    share: bool = False  # a fraction, shown in percent
    tiny: bool = False  # shown in powers of ten, from 0
    shows_best: bool = False

    def takes(self, name: str) -> bool:
        return name.partition("/")[2] in self.names

    def place(self, name: str) -> int:
        return self.names.index(name.partition("/")[2])


PANELS = (
    Panel("Loss (nats per token)", ("loss",)),
    Panel("CIDEr", ("CIDEr",), shows_best=True),
    Panel("Scores", ("BLEU-1", "ROUGE-L", "BLEU-4", "METEOR"), shows_best=True),
    Panel("Token accuracy", ("accuracy", "top5_accuracy"), share=True),
    Panel("Learning rate", ("lr", "encoder_lr"), tiny=True),
    Panel("Teacher forcing", ("teacher_forcing",), share=True),
    Panel("Gradient norm", ("grad_norm",), log=True),
    Panel("Images per second", ("images_per_s",)),
    Panel("Waiting for data", ("data_wait_share",), share=True),
)


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw `metrics.jsonl`, and replace `out` in one go."""
    write_whole(out, as_png(curves(read_metrics(metrics))), durable=False)


def curves(lines: list[dict[str, Any]]) -> Figure:
    """Every panel that the lines of `metrics.jsonl` have numbers for, on one figure."""
    series = _series(lines)
    panels = [(panel, {name: series[name] for name in series if panel.takes(name)}) for panel in PANELS]
    panels = [(panel, drawn) for panel, drawn in panels if drawn]
    figure, charts = sheet(len(panels), height=3.1)
    if not panels:
        figure.text(0.5, 0.5, "nothing logged yet", ha="center", color=INK)
    for axes, (panel, drawn) in zip(charts, panels, strict=True):
        _draw(axes, panel, drawn)
    return figure


def sheet(charts: int, height: float) -> tuple[Figure, Iterator[Axes]]:
    """A figure for so many charts, at most COLUMNS a row of `height` inches, and their axes as they are asked for."""
    columns, rows = min(max(charts, 1), COLUMNS), max(math.ceil(charts / COLUMNS), 1)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(4.6 * columns, height * rows), dpi=110, layout=layout, facecolor="white")
    return figure, (figure.add_subplot(rows, columns, place) for place in range(1, charts + 1))


def as_png(figure: Figure) -> bytes:
    """Draw a figure as the bytes of a PNG file."""
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def _series(lines: list[dict[str, Any]]) -> dict[str, Series]:
    """Steps and values of each name, finite ones only, in the order of the steps."""
    series: dict[str, Series] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "epoch") and isinstance(value, int | float) and math.isfinite(value):
                steps, values = series.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(float(value))
    return series


def _draw(axes: Axes, panel: Panel, lines: dict[str, Series]) -> None:
    for number, (name, (steps, values)) in enumerate(sorted(lines.items(), key=lambda line: panel.place(line[0]))):
        colour = COLOURS[number % len(COLOURS)]
        smooth = _smoothed(values)
        if smooth is not values:
            axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
        dots = "o" if len(values) < 30 else ""
        label = _label(name, lines) + (f"  best {max(values):.3f}" if panel.shows_best else "")
        axes.plot(steps, smooth, color=colour, linewidth=1.9, marker=dots, markersize=3.5, label=label)
    dress(axes, panel.title)
    axes.set_xlabel("step", fontsize=8.5, color=INK)
    axes.margins(x=0.03, y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _scale(axes, panel, [value for _, values in lines.values() for value in values])
    if len(lines) > 1 or panel.shows_best:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, handlelength=1.4)


def _scale(axes: Axes, panel: Panel, values: list[float]) -> None:
    if panel.log and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    elif panel.share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif panel.tiny:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda rate, _: f"{rate:.1e}".replace("e-0", "e-") if rate else "0")
        )


def _label(name: str, lines: dict[str, Series]) -> str:
    """The part of a name that tells the lines of a panel apart."""
    groups, lasts = ({name.partition("/")[part] for name in lines} for part in (0, 2))
    group, _, last = name.partition("/")
    if len(lasts) == 1:
        return group
    return last.replace("_", " ") if len(groups) == 1 else f"{group} {last}"


def _smoothed(values: list[float]) -> list[float]:
    """Smooth values by means over a fortieth of the run; the window is shorter, evenly, towards both ends."""
    if len(values) < SMOOTHED_FROM:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    reach = np.minimum(max(len(values) // 80, 1), np.minimum(centre, centre[::-1]))
    return list((sums[centre + reach + 1] - sums[centre - reach]) / (2 * reach + 1))


def dress(axes: Axes, title: str) -> None:
    """Give a panel the look that all share."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    axes.tick_params(which="both", labelsize=8.5, colors=INK, length=0)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
