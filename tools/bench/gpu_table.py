"""The table of docs/benchmarks.md of what `bench.py gpu` measures: each figure beside what it was, and its bounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.bench.timing import Row

OPEN = "to be measured"
FIRST_STEP = 20.0  # seconds

# On one NVIDIA H200, torch 2.11, before steps and searches were captured.
BEFORE: dict[str, str] = {
    "ceilings": "785 TFLOP/s in bf16, 51 in fp32, 4.1 TB/s",
    "step, 32 images, bf16, eager": "40.2 ms",
    "step, 128 images, bf16, eager": "45.3 ms",
    "step, 256 images, bf16, eager": "49.4 ms",
    "step, 128 images, fp16, eager": "42.5 ms",
    "step, 128 images, fp32, eager": "44.6 ms",
    "step, 128 images, bf16, compiled": "33.1 ms, first step 62 s",
    "step, query after, additive, 128 images, bf16, eager": "39.0 ms",
    "step, query after, dot, 128 images, bf16, eager": "23.0 ms",
    "frozen resnet50, 256 images, bf16, eager": "19.9 ms",
    "frozen resnet50, 256 images, bf16, compiled": "9.85 ms",
    "frozen resnet101, 256 images, bf16, eager": "28.9 ms",
    "frozen resnet101, 256 images, bf16, compiled": "15.2 ms",
    "whole step, frozen resnet50, 128 images, bf16, eager": "77.8 ms, 1,645 images/s",
    "whole step, all of resnet50 trains, 128 images, bf16, eager": "110.6 ms",
    "beam 5, 64 images, fp32": "65.5 ms, 977 captions/s",
    "beam 5, 64 images, bf16": "72.5 ms",
    "beam 5, 512 images, fp32": "68.8 ms",
    "beam 5, 512 images, bf16": "73.0 ms",
    "show-attend-tell, theirs": "90.2 ms",
    "show-attend-tell, ours, fp32": "38.9 ms, 2.3 times",
    "show-attend-tell, ours, bf16": "42.4 ms, 2.1 times",
    "imgcap, theirs": "213 ms",
    "imgcap, ours, fp32": "59 ms, 3.6 times",
    "imgcap, ours, bf16": "72 ms, 3.0 times",
    "att2in, theirs": "88.5 ms",
    "att2in, ours, fp32": "40.6 ms, 2.2 times",
    "att2in, ours, bf16": "46.1 ms, 1.9 times",
}


@dataclass(frozen=True)
class Bound:
    """What a figure has to reach, in words, and whether it does, given all figures by name."""

    words: str
    met: Callable[[Row, Mapping[str, Row]], bool]


def _most(key: str, value: float, unit: str) -> Bound:
    return Bound(f"≤ {value:g} {unit}", lambda figure, _: figure[key] <= value)


def _least(key: str, value: float, unit: str) -> Bound:
    return Bound(f"≥ {value:,g} {unit}", lambda figure, _: figure[key] >= value)


def _no_slower_than(other: str) -> Bound:
    return Bound(f"≤ {other}", lambda figure, known: other in known and figure["ms"] <= known[other]["ms"])


def _same(figure: Row, _: Mapping[str, Row]) -> bool:
    same, of, images = figure["same_captions"].partition(" of ")
    return bool(of) and same == images


SAME_CAPTIONS = Bound("all captions the same", _same)
FIRST = _most("warm_s", FIRST_STEP, "s to the first replay")
BOUNDS: dict[str, tuple[Bound, ...]] = {
    "step, 128 images, bf16, captured": (
        _most("ms", 8, "ms"),
        FIRST,
        _no_slower_than("step, 128 images, fp32, captured"),
    ),
    "step, 32 images, bf16, captured": (_most("ms", 3, "ms"), _no_slower_than("step, 32 images, fp32, captured")),
    "step, 256 images, bf16, captured": (_no_slower_than("step, 256 images, fp32, captured"),),
    "whole step, frozen resnet50, 128 images, bf16, as it comes": (
        _least("images_per_s", 9000, "images/s"),
        _most("flickr30k_epoch_s", 3.3, "s an epoch of Flickr30k"),
        FIRST,
    ),
    "whole step, all of resnet50 trains, 128 images, bf16, as it comes": (_least("images_per_s", 3000, "images/s"),),
    "beam 5, 64 images, fp32": (_least("captions_per_s", 8000, "captions/s"), SAME_CAPTIONS),
    "beam 5, 64 images, bf16": (_least("captions_per_s", 8000, "captions/s"),),
    "beam 5, 512 images, fp32": (_least("captions_per_s", 30000, "captions/s"), SAME_CAPTIONS),
    "beam 5, 512 images, bf16": (_least("captions_per_s", 30000, "captions/s"),),
    **{
        f"{peer}, ours, {precision}": (_least("ratio", times, "times theirs"),)
        for peer, least in {"show-attend-tell": (8, 12), "imgcap": (15, 20), "att2in": (8, 10)}.items()
        for precision, times in zip(("fp32", "bf16"), least, strict=True)
    },
}


def table(report: Mapping[str, Any], names: list[str]) -> str:
    """Write a Markdown table of named figures, as a report has them, or still to be measured."""
    known = {figure["name"]: figure for figure in report.get("figures", [])}
    left_out = {**report.get("skipped", {}), **report.get("failed", {})}
    lines = ["| what | before | now | of the floor's rate | memory | bound |", "|---|---|---|---|---|---|"]
    for name in names:
        figure = known.get(name)
        bounds = "; ".join(_verdict(bound, figure, known) for bound in BOUNDS.get(name, ()))
        cells = [name, BEFORE.get(name, "–"), *_found(figure, left_out.get(name)), bounds or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    about = {key: report[key] for key in ("machine", "torch", "tiny", "seconds") if key in report}
    told = [", ".join(f"{key} {value}" for key, value in about.items())] if about else []
    return "\n".join([*told, *lines]) + "\n"


def _verdict(bound: Bound, figure: Row | None, known: Mapping[str, Row]) -> str:
    if figure is None:
        return bound.words
    return f"{bound.words}: {'met' if bound.met(figure, known) else '**not met**'}"


def _found(figure: Row | None, left_out: str | None) -> list[str]:
    """Cells of what was measured, of the floor's share and of the memory."""
    if figure is None:
        return [f"{OPEN} ({left_out})" if left_out else OPEN, "–", "–"]
    if "ms" not in figure:
        return [", ".join(f"{key} {value:g}" for key, value in figure.items() if key != "name"), "–", "–"]
    parts = [f"{figure['ms']:g} ms"]
    if "ms_range" in figure:
        parts[0] += f" ({figure['ms_range'][0]:g}–{figure['ms_range'][1]:g})"
    parts += [f"{figure[key]:,.0f} {key.removesuffix('_per_s')}/s" for key in figure if key.endswith("_per_s")]
    told = {
        "ratio": "{} times",
        "same_captions": "{} captions the same",
        "flickr30k_epoch_s": "{} s an epoch of Flickr30k",
    }
    told |= {
        "waiting_for_loader": "{:.1%} waiting for the loader",
        "warm_s": "first steps {} s",
        "distance": "distance {:g}",
    }
    parts += [words.format(figure[key]) for key, words in told.items() if key in figure]
    floor = f"{figure['of_floor']:.0%} ({figure['floor_ms']:g} ms)" if "of_floor" in figure else "–"
    return [", ".join(parts), floor, f"{figure['peak_gib']:g} GiB" if "peak_gib" in figure else "–"]
