"""What all tests share: real data where there is some, a small shard set, training as a user starts it."""

import gc
import importlib.util
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported: its kernels then run on a CPU

sys.path.insert(0, str(Path(__file__).parent))
from photos import draw_photo
from warm import Interpreter

import imgcap.ranks.world
from imgcap.shards.builder import build
from imgcap.shards.sources.registry import SourceOptions, read_source

CHECKOUT = Path(__file__).resolve().parent.parent
HAS_SPACY = importlib.util.find_spec("spacy") is not None
TINY = [
    "data.image_size=32",
    "data.workers=0",
    "data.augment=light",
    "model.encoder.name=resnet18",
    "model.encoder.weights=none",
    "model.decoder.embed_dim=16",
    "model.decoder.hidden_dim=24",
    "model.decoder.attention_dim=16",
    "train.global_batch=8",
    "train.epochs=100",
    "log.every=1",
    "log.tensorboard=false",
    "eval.every=0",
    "eval.metrics=[]",
    "eval.limit=4",
    "eval.beam=2",
    "checkpoint.every=0",
]

START_BLOCK = (
    "device",
    "precision",
    "images",
    "captions",
    "vocabulary",
    "model",
    "batch",
    "length",
    "begins",
    "run folder",
)


class Words:
    """A tokeniser for machines without spaCy, as those with GPUs may be."""

    name = "white space"

    def __call__(self, caption):
        return caption.lower().replace(".", " .").split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def _freed_memory_goes_back() -> Iterator[None]:
    """A test that joins the ranks in its process would have all tests behind it keep what they free."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imgcap.ranks.world, "_keep_freed_memory", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def _compiled_goes_back() -> Iterator[None]:
    """What torch has compiled in this process goes with its module: over a suite it is gigabytes."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """One thread a process: fair to gloo ranks on few cores, and the same sums everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What scoring keeps on disk begins empty and leaves the user's own alone; processes that tests start share it."""
    os.environ["IMGCAP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of raw datasets: $IMGCAP_REAL_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("IMGCAP_REAL_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no raw datasets in {folder}")
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """60 demo scenes as shards, most of them for training; captions are cut at white space where there is no spaCy."""
    folder = tmp_path_factory.mktemp("shards") / "demo"
    if not HAS_SPACY:
        build(read_source("demo", SourceOptions(limit=60, raw_folder=folder.with_name("demo-raw"))), folder, Words())
        return folder
    command = [sys.executable, "tools/build_shards.py", "demo", "--out", str(folder), "--limit", "60", "--workers", "1"]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def warm():
    """Interpreters that have everything loaded, by whether they have DeepSpeed too."""
    plain = ("torchvision", *["spacy"][:HAS_SPACY], "imgcap.training.assembly")
    interpreters = {False: Interpreter(*plain), True: Interpreter(*plain, "deepspeed")}
    yield interpreters
    for interpreter in interpreters.values():
        interpreter.close()


@pytest.fixture
def launch(shards, warm):
    """Run launch/train.py on `ranks` processes and return what it ended with.

    With `wait=False`, `through` another script or options for `torchrun`, it is a process (of torchrun, where there are
    several ranks) as a user would start it.
    """

    def start(run, *overrides, ranks=1, options=(), wait=True, torchrun=(), through=(), extra=None, show=False):
        settings = [f"run_dir={run}", f"data.shards={shards}", *TINY, *overrides]
        arguments = [*through, "launch/train.py", "--config", os.devnull, *options, *settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (extra or {})
        if wait and not (through or torchrun or show):
            return warm["engine.name=deepspeed" in overrides].run(arguments, CHECKOUT, environment, ranks)
        python = [sys.executable]
        if ranks > 1 or torchrun:
            python += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), *torchrun]
        command = [*python, *arguments]
        if show:
            return command
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, **pipes)
        if not wait:
            return process
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return start


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def mistake(self) -> str:
        """What the command complained of: one line, exit code 2, and nothing else but a start block and progress."""
        assert self.returncode == 2, (self.returncode, self.stderr)
        *before, last = self.stderr.splitlines()
        assert last.startswith("error: ") and "Traceback" not in self.stderr, self.stderr
        said = (
            "the first step, ",
            "step ",
            "epoch ",
            "warning: ",
            "no GPU was found: ",
            *(f"{name:<12}" for name in START_BLOCK),
        )
        assert all(line.startswith(said) for line in before), self.stderr
        return last


@pytest.fixture
def own_signals():
    """Signals are handled as before when the test is over: training installs handlers of its own."""
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield
    for name, handler in handlers.items():
        signal.signal(name, handler)


@pytest.fixture
def command(monkeypatch, capfd, own_signals):
    """Run `imgcap`, `launch/train.py` or the like in this process, which has torch already.

    It has ended when a process of its own would have: once the save that it left in the background is done, which the
    next command's save to the same run would otherwise run into.
    """

    def start(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(CHECKOUT)
        capfd.readouterr()
        code, earlier = 0, set(threading.enumerate())
        try:
            if script == "imgcap":
                runpy.run_module(script, run_name="__main__")
            else:
                runpy.run_path(str(CHECKOUT / script), run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            for thread in set(threading.enumerate()) - earlier:
                if not thread.daemon:
                    thread.join()
        return Ended(code, *capfd.readouterr())

    return start


@pytest.fixture
def tiny():
    """Settings of a model and a run that take a second."""
    return [
        "data={image_size: 32, workers: 0, augment: light}",
        "model.encoder={name: resnet18, weights: none}",
        "model.decoder={embed_dim: 16, hidden_dim: 24, attention_dim: 16}",
        "train={global_batch: 8, epochs: 100, max_steps: 1}",
        "eval={every: 0, limit: 4, beam: 2, metrics: [BLEU]}",
        "checkpoint.every=0",
        "log={every: 1, tensorboard: false}",
    ]


@pytest.fixture
def photo():
    return draw_photo


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a given size (`4m`), where this machine lets us."""
    disks = []

    def mount(size):
        disk = tmp_path / f"disk-{len(disks)}"
        disk.mkdir()
        if not shutil.which("mount"):
            pytest.skip("no mount command")
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True
        ).returncode:
            pytest.skip("mounting a tmpfs isn't permitted here")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(["umount", "--lazy", disk], check=True)  # a writer that failed may hold its file still


@pytest.fixture
def metrics():
    """The training lines of a run's metrics.jsonl, by step."""

    def read(run):
        written = Path(run) / "metrics.jsonl"
        lines = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
        return {line["step"]: line for line in lines if "train/loss" in line}

    return read
