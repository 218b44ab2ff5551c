"""Curves are pictures of the numbers: other numbers, other pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgcap.training.monitor.curves import PANELS, _smoothed, curves, draw_curves


def draw(folder: Path, lines: list[dict[str, Any]], torn: str = "") -> Image.Image:
    metrics, out = folder / "metrics.jsonl", folder / "curves.png"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    draw_curves(metrics, out)
    with Image.open(out) as picture:
        return picture.convert("RGB")


def lines(*names: str, slope: float = 1.0) -> list[dict[str, Any]]:
    return [{"step": step, "epoch": 0, **dict.fromkeys(names, slope / step)} for step in range(1, 20)]


def differ(one: Image.Image, other: Image.Image) -> bool:
    return one.size != other.size or bool((np.asarray(one) != np.asarray(other)).any())


def test_only_panels_with_data(tmp_path: Path) -> None:
    one = draw(tmp_path, lines("train/loss"))
    three = draw(tmp_path, lines("train/loss", "val/CIDEr", "optim/lr"))
    four = draw(tmp_path, lines("train/loss", "val/CIDEr", "optim/lr", "train/grad_norm"))
    assert one.height == three.height and abs(three.width - 3 * one.width) < 5
    assert four.width == three.width and abs(four.height - 2 * three.height) < 5
    assert not differ(one, draw(tmp_path, lines("train/loss", "train/batch_hash", "perf/memory_gib")))


def test_pictures_follow_the_numbers(tmp_path: Path) -> None:
    first = draw(tmp_path, lines("train/loss"))
    assert not differ(first, draw(tmp_path, lines("train/loss")))
    assert differ(first, draw(tmp_path, lines("train/loss", slope=-1.0)))
    assert differ(first, draw(tmp_path, lines("train/loss", "val/loss")))
    assert len(first.getcolors(1 << 20) or []) > 10


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    good = lines("train/loss")
    broken = [*good, {"step": 20, "epoch": 0, "train/loss": float("nan")}, {"step": 21, "train/loss": float("inf")}]
    assert not differ(draw(tmp_path, good), draw(tmp_path, broken, torn='{"step": 22, "tr'))
    assert draw(tmp_path, []).width > 100
    draw_curves(tmp_path / "missing.jsonl", tmp_path / "empty.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "empty.png", "metrics.jsonl"]


def test_each_panel_draws_a_name(tmp_path: Path) -> None:
    for panel in PANELS:
        assert [other for other in PANELS if other.takes(f"train/{panel.names[0]}")] == [panel]


def test_rates_are_drawn_at_their_own_scale() -> None:
    logged = lines("optim/lr", "optim/encoder_lr", slope=4e-4)
    [axes] = curves([line | {"optim/trainable_parameters": 7_000_000} for line in logged]).axes
    assert [line.get_label() for line in axes.lines] == ["lr", "encoder lr"]
    assert all(list(line.get_ydata()) == [4e-4 / step for step in range(1, 20)] for line in axes.lines)
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] < 1e-3


def test_smoothing_keeps_a_line_a_line_and_calms_noise() -> None:
    line = list(np.linspace(3.0, -1.0, 500))
    assert np.allclose(_smoothed(line), line)
    noise = list(np.random.default_rng(0).normal(size=500))
    assert np.std(_smoothed(noise)) < 0.5 * np.std(noise)
    assert _smoothed(noise[:20]) == noise[:20]
