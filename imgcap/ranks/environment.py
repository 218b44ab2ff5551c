"""The report of `imgcap train --env`: everything about this machine that a report of a fault should say."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

import torch

LIBRARIES = ("torch", "torchvision", "deepspeed", "webdataset", "spacy", "pycocoevalcap", "safetensors", "numpy")
SETTINGS = ("NCCL_", "GLOO_", "TORCH", "OMP_", "MKL_", "CUDA_", "DS_", "IMGCAP_", "SLURM_JOB", "MASTER_")
RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def environment_report() -> str:
    """Report versions, processors, GPUs with their topology, and the settings that reach torch.distributed."""
    return "\n".join(f"{name:<14} {value}" for name, value in _facts())


def _facts() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "torch", torch.__version__
    for package in ("imgcap", *LIBRARIES):
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processors", f"{allowed} of {os.cpu_count()}, torch uses {torch.get_num_threads()}"
    shared = os.path.isdir("/dev/shm") and f"{shutil.disk_usage('/dev/shm').free / 2**30:.1f} GiB free"
    yield "shared memory", shared or "none"
    cudnn, available = torch.backends.cudnn.version(), torch.cuda.is_available()
    yield "CUDA", f"{torch.version.cuda}, cuDNN {cudnn}, available: {available}"
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        yield f"GPU {number}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor}"
    if available:
        yield "NCCL", ".".join(str(part) for part in torch.cuda.nccl.version())
        yield "topology", _output(["nvidia-smi", "topo", "-m"])
    backends = {"nccl": torch.distributed.is_nccl_available(), "gloo": torch.distributed.is_gloo_available()}
    yield "backends", ", ".join(name for name, there in backends.items() if there)
    for name in sorted(os.environ):
        if name.startswith(SETTINGS) or name in RENDEZVOUS:
            yield "setting", f"{name}={os.environ[name]}"


def _output(command: list[str]) -> str:
    try:
        return "\n" + subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
