"""That Triton compiles the kernels for the GPUs that there are: its interpreter takes more than its compiler does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = {
    "attention_weights",
    "attention_context",
    "attention_context_backward",
    "attention_query_backward",
    "attention_cells_backward",
    "lstm_cell",
    "lstm_cell_backward",
    "cross_entropy",
}
SMALLEST = 99 * 1024  # bytes of shared memory of a program, on the GPUs from compute capability 8.0 on


def compile_kernels(capability: int, dtypes: str, *sizes: str) -> list[dict]:
    pytest.importorskip("triton")
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, script, str(capability), dtypes, *sizes],
        cwd=Path.cwd(),
        env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.slow
def test_the_kernels_compile_for_an_h100():
    compiled = compile_kernels(90, "bfloat16", "128,5,49,512,2048,512,7000")
    assert {line["kernel"] for line in compiled} == KERNELS
    assert all(line["shared"] <= SMALLEST and line["binary"] for line in compiled)


@pytest.mark.exhaustive
@pytest.mark.parametrize("capability", [80, 89, 90, 100])
def test_the_kernels_compile_for_every_gpu_dtype_and_size(capability):
    sizes = ["1,1,7,40,40,40,13", "128,5,49,512,2048,512,7000", "8,115,197,512,768,512,30000", "2,5,1024,512,1024,40,7"]
    compiled = compile_kernels(capability, "float32,bfloat16,float16", *sizes)
    assert {(line["kernel"], line["dtype"]) for line in compiled} >= {
        (kernel, dtype) for kernel in KERNELS for dtype in ("float32", "bfloat16", "float16")
    }
    assert all(line["shared"] <= SMALLEST for line in compiled), max(compiled, key=lambda line: line["shared"])
