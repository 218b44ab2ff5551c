"""Curves are pictures of the numbers: read off the figure, with one axis, and nothing over anything else."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from imgcap.training.monitor.curves import PANELS, _smoothed, curves, draw_curves

SCORES = {"CIDEr": 0.9, "BLEU-1": 0.7, "BLEU-4": 0.3, "METEOR": 0.25, "ROUGE-L": 0.5, "SPICE": 0.2}


def draw(folder: Path, lines: list[dict[str, Any]], torn: str = "") -> Image.Image:
    metrics, out = folder / "metrics.jsonl", folder / "curves.png"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    draw_curves(metrics, out)
    with Image.open(out) as picture:
        return picture.convert("RGB")


def lines(*names: str, slope: float = 1.0) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": 0, **dict.fromkeys(names, slope / step)} for step in range(1, 20)]


def a_run(steps: int, log: int, evaluate: int) -> list[dict[str, Any]]:
    """What a run logs: CIDEr rises until four fifths of it, val loss falls until half of it."""
    logged = []
    for step in range(log, steps + 1, log):
        done = step / steps
        line: dict[str, Any] = {"step": step, "epoch": int(10 * done), "train/batch_hash": 2**62 + step}
        line |= {"train/loss": 5 - 4 * done, "train/accuracy": 0.9 * done, "train/top5_accuracy": 0.5 + 0.5 * done}
        line |= {"optim/lr": 1e-3 * (1 - done), "optim/encoder_lr": 1e-5 * (1 - done), "train/teacher_forcing": 1.0}
        line |= {"train/grad_norm": 10 ** (3 * done), "perf/images_per_s": 50 + step % 7, "perf/data_wait_share": 0.01}
        line |= {"optim/trainable_parameters": 7_000_000}
        if evaluate and step % evaluate == 0:
            line |= {f"val/{name}": value * (1 - (done - 0.8) ** 2) for name, value in SCORES.items()}
            line |= {"val/loss": 2 + (done - 0.5) ** 2}
        logged.append(line)
    return logged


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def told(figure: Figure) -> str:
    return str(figure.get_supxlabel()).replace("\n", " ")


def marked(axes: Axes, what: str) -> list[tuple[float, float]]:
    return [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_gid() == what]


def differ(one: Image.Image, other: Image.Image) -> bool:
    return one.size != other.size or bool((np.asarray(one) != np.asarray(other)).any())


def drawn(done: float) -> dict[str, float]:
    """What a self-critical step logs beside the rest."""
    said = {"reward": 0.2 + done + 1e-9, "reward_spread": 0.3, "baseline": 0.2 + done, "advantage": 0.3 - done / 5}
    said |= {"bad_endings": 0.2 - done / 8, "repeats": done / 9, "length": 9 - done, "distinct_2": 0.8, "entropy": 1.5}
    return {"train/loss": 1.5} | {f"sampled/{name}": value for name, value in said.items()}


RUNS = {
    "three steps": a_run(3, 1, 0),
    "three steps, logged once": a_run(3, 3, 3),
    "one evaluation": a_run(580, 20, 580),
    "many evaluations": a_run(2000, 10, 200),
    "a hundred thousand steps": a_run(100_000, 20, 5000),
    "self-critical": [line | drawn(line["step"] / 100) for line in a_run(100, 10, 50)],
    "a lost gradient": [line | {"train/grad_norm": math.nan} for line in a_run(100, 10, 50)],
}


@pytest.mark.parametrize("run", RUNS)
def test_one_axis_and_nothing_cut_or_covered(run: str) -> None:
    figure = curves(RUNS[run], "a-run")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    steps = RUNS[run][-1]["step"]
    assert figure.get_suptitle().startswith(f"a-run: step {steps:,}, epoch ")
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert (low, high) == figure.axes[0].get_xlim() and low < steps <= high < 1.1 * steps
        assert axes.get_xlabel() == "step"
    texts = [figure._suptitle, *([figure._supxlabel] if told(figure) else [])]
    for axes in figure.axes:
        texts.append(axes._left_title)
        legend = axes.get_legend()
        texts += legend.get_texts() if legend else []
        low, high = axes.get_ylim()  # labels beyond are not drawn
        texts += [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.padded(1).containsx(box.x0) and figure.bbox.padded(1).containsx(box.x1), text
        assert figure.bbox.padded(1).containsy(box.y0) and figure.bbox.padded(1).containsy(box.y1), text
    said = [(text, box) for text, box in zip(texts, boxes, strict=True) if text.get_text().strip()]
    for (one, box), (other, there) in itertools.combinations(said, 2):
        assert not box.padded(-2).overlaps(there.padded(-2)), (one.get_text(), other.get_text())


def test_the_best_is_marked_and_told() -> None:
    figure = curves(RUNS["many evaluations"])
    loss, cider, scores = figure.axes[:3]
    assert titles(figure)[:3] == ["Loss (nats per token)", "CIDEr", "Other scores, 0 to 1"]
    assert marked(loss, "best") == [(1000, 2.0)] and marked(cider, "best") == [(1600, SCORES["CIDEr"])]
    labels = [text.get_text() for axes in (loss, cider) for text in axes.get_legend().get_texts()]
    assert labels == ["train", "val, best 2.000 at step 1,000", "val, best 0.900 at step 1,600"]
    assert len(marked(scores, "best")) == 5 and scores.get_ylim()[0] == 0 and scores.get_ylim()[1] <= 1


def test_a_run_that_turns_self_critical_shows_no_drawn_captions_as_true_ones() -> None:
    """The loss jumped to the entropy of drawn words, and the accuracy fell to theirs. Keys stood in the legends."""
    turned = [line | (drawn(line["step"] / 100) if line["step"] > 50 else {}) for line in a_run(100, 10, 50)]
    figure = curves(turned)
    for axes in (figure.axes[titles(figure).index(title)] for title in ("Loss (nats per token)", "Token accuracy")):
        assert [list(line.get_xdata()) for line in axes.lines if line.get_label() in ("train", "likeliest word")] == [
            [10, 20, 30, 40, 50]
        ]
    legends = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "reward, baseline" in legends, "equal but for rounding, the one lay hidden under the other"
    assert {"end in mid-phrase", "say three words twice"} < set(legends) and not any("_" in text for text in legends)
    assert "pairs of words that differ 80%, entropy of drawn words 1.500" in told(figure) and "_" not in told(figure)


def test_what_never_changes_is_told_and_not_drawn() -> None:
    figure = curves(RUNS["many evaluations"])
    assert "Teacher forcing" not in titles(figure) and "Waiting for data" not in titles(figure)
    assert told(figure) == "Throughout: teacher forcing 100%, share of time waiting for data 1%."


def test_a_single_evaluation_is_told_and_not_drawn() -> None:
    figure = curves(RUNS["one evaluation"])
    assert "CIDEr" not in titles(figure)
    assert "Only at step 580: CIDEr 0.864, BLEU-1 0.672, ROUGE-L 0.480, BLEU-4 0.288," in told(figure)
    assert marked(figure.axes[0], "best") == [(580, 2.25)], "its loss stands beside the curve of train's"
    alone = curves(RUNS["three steps, logged once"])
    assert alone.axes == [] and "train loss 1.000, val loss 2.250, CIDEr" in told(alone)


def test_rates_that_differ_by_more_than_ten_times_have_a_log_axis() -> None:
    for encoder, scale in ((1e-5, "log"), (5e-4, "linear")):
        figure = curves([line | {"optim/encoder_lr": encoder} for line in a_run(100, 10, 0)])
        axes = figure.axes[titles(figure).index("Learning rate")]
        assert axes.get_yscale() == scale
        assert [line.get_label() for line in axes.lines] == ["decoder", "encoder"]
        assert axes.get_ylim()[1] < 5e-3, "no number of parameters"


def test_equal_rates_are_one_line() -> None:
    logged = lines("optim/lr", "optim/encoder_lr", slope=4e-4)
    [axes] = curves(logged).axes
    assert [line.get_label() for line in axes.lines] == ["decoder, encoder"]
    assert list(axes.lines[0].get_ydata()) == [4e-4 / step for step in range(1, 20)]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] < 1e-3


def test_numbers_that_are_not_finite_are_told_and_marked(tmp_path: Path) -> None:
    broken = [*lines("train/loss"), {"step": 20, "train/loss": None}, {"step": 21, "train/loss": math.inf}]
    figure = curves(broken)
    [axes] = figure.axes
    assert told(figure) == "train loss was not finite at 2 of 21 logged steps, first at 20 (×)."
    [crosses] = [line.get_xdata() for line in axes.lines if line.get_gid() == "lost"]
    assert list(crosses) == [20, 21]
    assert list(axes.lines[0].get_xdata()) == list(range(1, 20))
    assert "gradient norm" not in told(figure)
    assert "grad norm was not finite at 10 of 10" in told(curves(RUNS["a lost gradient"]))


def test_a_resumed_run_has_each_step_once() -> None:
    again = [{"step": step, "epoch": 1, "train/loss": 10.0 + step} for step in (5, 6, 7)]
    [axes] = curves([*lines("train/loss")[:6], *again]).axes
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6, 7]
    assert list(axes.lines[0].get_ydata()) == [1, 1 / 2, 1 / 3, 1 / 4, 15, 16, 17]
    late = [{"step": 90_000 + step, "epoch": 1, "train/loss": 1.0 / step} for step in range(1, 1000)]
    [axes] = curves(late).axes
    assert axes.get_xlim()[0] > 89_000, "the steps that other files have take no room"


def test_only_panels_with_data(tmp_path: Path) -> None:
    one = draw(tmp_path, lines("train/loss"))
    three = draw(tmp_path, lines("train/loss", "val/CIDEr", "optim/lr"))
    four = draw(tmp_path, lines("train/loss", "val/CIDEr", "optim/lr", "train/grad_norm"))
    assert one.height == three.height and abs(three.width - 3 * one.width) < 5
    assert four.width == three.width and four.height > 1.7 * three.height
    assert not differ(one, draw(tmp_path, lines("train/loss", "train/batch_hash", "perf/memory_gib")))


def test_pictures_follow_the_numbers(tmp_path: Path) -> None:
    first = draw(tmp_path, lines("train/loss"))
    assert not differ(first, draw(tmp_path, lines("train/loss")))
    assert differ(first, draw(tmp_path, lines("train/loss", slope=-1.0)))
    assert differ(first, draw(tmp_path, lines("train/loss", "val/loss")))
    assert len(first.getcolors(1 << 20) or []) > 10


def test_files_that_are_torn_empty_or_missing(tmp_path: Path) -> None:
    good = lines("train/loss")
    assert not differ(draw(tmp_path, good), draw(tmp_path, good, torn='{"step": 22, "tr'))
    assert draw(tmp_path, []).width > 100
    draw_curves(tmp_path / "missing.jsonl", tmp_path / "empty.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "empty.png", "metrics.jsonl"]
    assert told(curves([])) == "nothing logged yet"


def test_each_panel_draws_a_name() -> None:
    for panel in PANELS:
        assert [other for other in PANELS if other.takes(f"train/{panel.names[0]}")] == [panel]


def test_smoothing_keeps_a_line_a_line_and_calms_noise() -> None:
    line = list(np.linspace(3.0, -1.0, 500))
    assert np.allclose(_smoothed(line), line)
    noise = list(np.random.default_rng(0).normal(size=500))
    assert np.std(_smoothed(noise)) < 0.5 * np.std(noise)
    assert _smoothed(noise[:20]) == noise[:20]
