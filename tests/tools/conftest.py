"""The commands as a user types them, run in this process, which has torch already."""

import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def mistake(self) -> str:
        """What the command complained of: one line, exit code 2, and nothing else on stderr but progress."""
        assert self.returncode == 2, (self.returncode, self.stderr)
        *before, last = self.stderr.splitlines()
        assert last.startswith("error: ") and "Traceback" not in self.stderr, self.stderr
        assert all(line.startswith("step ") for line in before), self.stderr
        return last


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Run `launch/train.py` or the like with arguments; returns exit code and output."""

    def start(script: str, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        capfd.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capfd.readouterr())

    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield start
    for name, handler in handlers.items():  # training installs its own
        signal.signal(name, handler)


@pytest.fixture
def tiny() -> list[str]:
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
