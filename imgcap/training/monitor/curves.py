"""`curves.png`: what a run has logged so far, on one sheet. Every panel has the same x axis, the step."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from imgcap.files.durable import write_whole
from imgcap.training.monitor.writers import read_metrics

COLUMNS, LEGEND_COLUMNS = 3, 3
# Okabe and Ito's colours, which stay apart for every sort of eye (https://jfly.uni-koeln.de/color).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5a44", "#5c677d")
INK, GREY, FAINT = "#22272e", "#5c6570", "#d5dae1"
SMOOTHED_FROM = 60  # points; fewer are drawn as they are
EVEN = 0.02  # a share that varies by no more is told and not drawn
LETTERS = 62  # of the text below, in a column's width
WIDTH = 4.6  # inches of a column

# Of a self-critical step these are those of drawn captions, whose loss is their entropy, with a panel of its own.
OF_TRUE_CAPTIONS = ("train/loss", "train/accuracy", "train/top5_accuracy")
IN_LEGEND = {
    "accuracy": "likeliest word",
    "top5_accuracy": "among the likeliest 5",
    "lr": "decoder",
    "encoder_lr": "encoder",
    "reward_spread": "spread of reward",
    "bad_endings": "end in mid-phrase",
    "repeats": "say three words twice",
}
IN_TEXT = {
    "lr": "learning rate",
    "encoder_lr": "encoder's learning rate",
    "images_per_s": "images per second",
    "data_wait_share": "share of time waiting for data",
    "top5_accuracy": "top-5 accuracy",
    "bad_endings": "drawn captions that end in mid-phrase",
    "repeats": "drawn captions that say three words twice",
    "distinct_2": "pairs of words that differ",
    "length": "words of a drawn caption",
    "entropy": "entropy of drawn words",
}

Series = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Panel:
    """One small chart: the names it draws (their last part, any split), and how."""

    title: str
    names: tuple[str, ...]
    log: bool = False
    share: bool = False  # a fraction, shown in percent
    rates: bool = False  # shown in powers of ten: from 0, or on a log axis where one is 10 times the other
    from_zero: bool = False
    best: Literal["highest", "lowest"] | None = None  # of evaluations; those of training have none

    def takes(self, name: str) -> bool:
        return name.partition("/")[2] in self.names

    def place(self, name: str) -> int:
        return self.names.index(name.partition("/")[2])

    def says_nothing(self, drawn: Mapping[str, Series]) -> bool:
        """Whether no line goes anywhere: one point, or one value."""
        spans = [max(values) - min(values) for _, values in drawn.values()]
        return max(spans) <= (EVEN if self.share else 0.0)

    def said(self, value: float) -> str:
        return f"{value:.0%}" if self.share else f"{value:.3g}" if self.rates else f"{value:,.3f}"


PANELS = (
    Panel("Loss (nats per token)", ("loss",), best="lowest"),
    Panel("CIDEr", ("CIDEr",), from_zero=True, best="highest"),
    Panel("Other scores, 0 to 1", ("BLEU-1", "ROUGE-L", "BLEU-4", "METEOR", "SPICE"), from_zero=True, best="highest"),
    Panel("CLIPScore", ("CLIPScore", "RefCLIPScore"), best="highest"),
    Panel("Reward of drawn captions", ("reward", "baseline", "reward_spread", "advantage")),
    Panel("Drawn captions that ...", ("bad_endings", "repeats"), share=True),
    Panel("Pairs of words that differ", ("distinct_2",), share=True),
    Panel("Entropy of drawn words (nats)", ("entropy",)),
    Panel("Divergence from the start (nats a caption)", ("kl",)),
    Panel("Words of a drawn caption", ("length",)),
    Panel("Token accuracy", ("accuracy", "top5_accuracy"), share=True),
    Panel("Learning rate", ("lr", "encoder_lr"), rates=True),
    Panel("Teacher forcing", ("teacher_forcing",), share=True),
    Panel("Gradient norm", ("grad_norm",), log=True),
    Panel("Images per second", ("images_per_s",), from_zero=True),
    Panel("Waiting for data", ("data_wait_share",), share=True),
)


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw `metrics.jsonl` of a run, whose folder names it, and replace `out` in one go."""
    write_whole(out, as_png(curves(read_metrics(metrics), metrics.absolute().parent.name)), durable=False)


def curves(lines: list[dict[str, Any]], run: str = "") -> Figure:
    """Draw every panel that the lines of `metrics.jsonl` have numbers for; what never changes is told below them."""
    series, lost = _series(lines)
    found = [(panel, {name: series[name] for name in series if panel.takes(name)}) for panel in PANELS]
    found = [(panel, drawn) for panel, drawn in found if drawn]
    told = [(panel, drawn) for panel, drawn in found if panel.says_nothing(drawn)]
    panels = [entry for entry in found if entry not in told]
    columns = min(max(len(panels), 1), COLUMNS)
    notes = [*_notes(told), *_lost(lost, lines)] or ([] if panels else ["nothing logged yet"])
    below = "\n".join(line for note in notes for line in textwrap.wrap(note, LETTERS * columns))
    figure, charts = sheet(len(panels), height=3.1, margin=0.5 + 0.18 * len(below.splitlines()))
    figure.suptitle(_heading(run, lines), x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    if below:
        figure.supxlabel(below, x=0.015, ha="left", fontsize=9, color=GREY, linespacing=1.5)
    steps = [line["step"] for line in lines] or [0]
    first = min(steps) if min(steps) > 0.1 * max(steps) and len(steps) > 1 else 0
    for axes, (panel, drawn) in zip(charts, panels, strict=True):
        _draw(axes, panel, drawn)
        _mark(axes, [step for name in lost if panel.takes(name) for step in lost[name]])
        axes.set_xlim(first - 0.02 * (max(steps) - first), max(steps) + 0.02 * (max(steps) - first))
    return figure


def sheet(charts: int, height: float, margin: float = 0.0) -> tuple[Figure, Iterator[Axes]]:
    """A figure for so many charts, at most COLUMNS a row of `height` inches, and their axes as they are asked for.

    `margin` is what a heading and a text below need, in inches.
    """
    columns, rows = min(max(charts, 1), COLUMNS), math.ceil(charts / COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    size = WIDTH * columns, max(height * rows + margin, 1.0)
    figure = Figure(figsize=size, dpi=110, layout=layout, facecolor="white")
    return figure, (figure.add_subplot(rows, columns, place) for place in range(1, charts + 1))


def as_png(figure: Figure) -> bytes:
    """Draw a figure as the bytes of a PNG file."""
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def _series(lines: list[dict[str, Any]]) -> tuple[dict[str, Series], dict[str, list[int]]]:
    """Steps and values of each name, finite ones only, in the order of the steps; and the steps of the others."""
    series: dict[str, Series] = {}
    lost: dict[str, list[int]] = {}
    for line in sorted({line["step"]: line for line in lines}.values(), key=lambda line: line["step"]):
        left_out = ("step", "epoch", *(OF_TRUE_CAPTIONS if "sampled/entropy" in line else ()))
        for name, value in line.items():
            if name in left_out:
                continue
            if isinstance(value, int | float) and math.isfinite(value):
                steps, values = series.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(float(value))
            elif value is None or isinstance(value, float):  # NaN, as metrics.jsonl has it
                lost.setdefault(name, []).append(line["step"])
    return series, lost


def _heading(run: str, lines: list[dict[str, Any]]) -> str:
    if not lines:
        return run
    last = max(lines, key=lambda line: line["step"])
    at = f"step {last['step']:,}" + (f", epoch {last['epoch'] + 1:,}" if "epoch" in last else "")
    return f"{run}: {at}" if run else at


def _notes(told: list[tuple[Panel, dict[str, Series]]]) -> list[str]:
    """Tell what is not drawn: what was logged once, a line for each step, and what never changed."""
    once: dict[int, list[str]] = {}
    always = []
    for panel, drawn in told:
        for name, (steps, values) in sorted(drawn.items(), key=lambda line: panel.place(line[0])):
            if len(values) == 1:
                once.setdefault(steps[0], []).append(f"{_spoken(name)} {panel.said(values[0])}")
            else:
                low, high = panel.said(min(values)), panel.said(max(values))
                always.append(f"{_spoken(name)} {low if low == high else f'{low} to {high}'}")
    notes = [f"Only at step {step:,}: {', '.join(values)}." for step, values in sorted(once.items())]
    return [*notes, f"Throughout: {', '.join(always)}."] if always else notes


def _lost(lost: dict[str, list[int]], lines: list[dict[str, Any]]) -> list[str]:
    """Tell where a number that is drawn was NaN or infinite."""
    return [
        f"{_spoken(name)} was not finite at {len(steps):,} of {len(lines):,} logged steps, first at {min(steps):,} (×)."
        for name, steps in lost.items()
        if any(panel.takes(name) for panel in PANELS)
    ]


def _spoken(name: str) -> str:
    group, _, last = name.partition("/")
    return f"{group} {last}" if last == "loss" else IN_TEXT.get(last, last.replace("_", " "))


def _draw(axes: Axes, panel: Panel, lines: dict[str, Series]) -> None:
    for number, (label, (steps, values), is_best) in enumerate(_lines(panel, lines)):
        colour = COLOURS[number % len(COLOURS)]
        smooth = _smoothed(values)
        if smooth is not values:
            axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
        shown = slice(len(values) // 320, -(len(values) // 320) or None)  # the ends are means of few
        dots = "o" if len(values) < 30 else ""
        axes.plot(steps[shown], smooth[shown], color=colour, linewidth=1.9, marker=dots, markersize=3.5, label=label)
        if is_best:
            place = (np.argmin if panel.best == "lowest" else np.argmax)(values)
            best = steps[place], values[place]
            axes.plot(*best, marker="*", markersize=13, color=colour, markeredgecolor="white", gid="best", zorder=4)
    entries = len(axes.get_legend_handles_labels()[1])
    entries *= len(lines) > 1 or panel.best is not None
    dress(axes, panel.title, pad=9 + 14 * math.ceil(entries / LEGEND_COLUMNS))
    axes.set_xlabel("step", fontsize=8.5, color=INK)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _scale(axes, panel, lines)
    if entries:  # above the lines, where it hides none
        above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.97), "borderpad": 0.2}
        spaces: dict[str, Any] = {"handlelength": 1.2, "handletextpad": 0.4, "columnspacing": 1.0, "labelspacing": 0.3}
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, ncols=LEGEND_COLUMNS, **above, **spaces)


def _lines(panel: Panel, lines: dict[str, Series]) -> Iterator[tuple[str, Series, bool]]:
    """A panel's lines in its order: label, points, and whether their best is marked. Equal ones are one."""
    left = dict(sorted(lines.items(), key=lambda line: panel.place(line[0])))
    evaluated = [name for name in left if not name.startswith("train/")]
    while left:
        name = next(iter(left))
        points = left[name]
        alike = [other for other in left if _equal(left[other], points)]
        label = ", ".join(_label(other, lines) for other in alike)
        is_best = panel.best is not None and name in evaluated
        if is_best:
            value = min(points[1]) if panel.best == "lowest" else max(points[1])
            at = f" at step {points[0][points[1].index(value)]:,}" if len(evaluated) == 1 else ""
            label += f", best {value:.3f}{at}" if len(evaluated) == 1 else f" {value:.3f}"
        yield label, points, is_best
        left = {other: left[other] for other in left if other not in alike}


def _equal(one: Series, other: Series) -> bool:
    """Whether two lines would hide each other: equal but for rounding, as mean reward and baseline may be."""
    return one[0] == other[0] and bool(np.allclose(one[1], other[1], rtol=1e-6, atol=0))


def _mark(axes: Axes, steps: list[int]) -> None:
    """Mark steps with no finite value on the x axis."""
    if steps:
        axes.plot(steps, [0.02] * len(steps), "x", color="#b00020", transform=axes.get_xaxis_transform(), gid="lost")


def _scale(axes: Axes, panel: Panel, lines: dict[str, Series]) -> None:
    values = [value for _, values in lines.values() for value in values]
    if panel.log and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    elif panel.share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif panel.rates:
        _scale_of_rates(axes, [max(values) for _, values in lines.values()])
    elif panel.from_zero:
        axes.set_ylim(min(0.0, min(values)), 1.12 * max(*values, 1e-3))


def _scale_of_rates(axes: Axes, peaks: list[float]) -> None:
    """From 0; or, where one rate is more than 10 times another, a log axis down to a hundredth of the lowest."""
    low = min((peak for peak in peaks if peak > 0), default=0.0)
    if low and max(peaks) > 10 * low:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(low / 100, 2 * max(peaks))
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.1e}".replace("e-0", "e-") if rate else "0"))


def _label(name: str, lines: dict[str, Series]) -> str:
    """The part of a name that tells the lines of a panel apart."""
    groups, lasts = ({name.partition("/")[part] for name in lines} for part in (0, 2))
    group, _, last = name.partition("/")
    if len(lasts) == 1:
        return group
    last = IN_LEGEND.get(last, last)
    return last if len(groups) == 1 else f"{group} {last}"


def _smoothed(values: list[float]) -> list[float]:
    """Smooth values by means over a fortieth of the run; the window is shorter, evenly, towards both ends."""
    if len(values) < SMOOTHED_FROM:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    reach = np.minimum(max(len(values) // 80, 1), np.minimum(centre, centre[::-1]))
    return list((sums[centre + reach + 1] - sums[centre - reach]) / (2 * reach + 1))


def dress(axes: Axes, title: str, pad: float = 8) -> None:
    """Give a panel the look that all share."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=pad)
    axes.tick_params(which="both", labelsize=8.5, colors=INK, length=0)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
