"""The numbers, texts and pictures of a run: `metrics.jsonl`, TensorBoard and, if asked for, Weights & Biases."""

import json
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgcap.config.load import as_yaml
from imgcap.config.run import Config
from imgcap.errors import UserError, needs
from imgcap.files.durable import write_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
WANDB_ID = "wandb-id"


class Monitor:
    """Writes what happened at a step. Only rank 0's is enabled; every method of another does nothing.

    A line of `metrics.jsonl` is one step: later calls for the same step add to its line. Each call is on
    its way to the disk when it returns, so a killed process loses nothing that it has logged.
    """

    def __init__(self, run: Path, tensorboard: bool, wandb: bool, enabled: bool = True):
        if wandb:
            needs("log.wandb=true", "wandb")
        if tensorboard:
            needs("log.tensorboard=true", "tensorboard")
        self.run, self.enabled = run, enabled
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._lines: _Lines | None = None
        self._wandb: Any = _start_wandb(run) if wandb and enabled else None

    def scalars(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Log named numbers. Integers stay exact in `metrics.jsonl`; TensorBoard has float32."""
        if not self.enabled:
            return
        if self._lines is None:
            self._lines = _Lines(self.run / METRICS)
        self._lines.write(step, epoch, values)
        if writer := self._open_tensorboard():
            for name, value in values.items():
                writer.add_scalar(name, float(value), step)
            writer.flush()
        if self._wandb:
            self._wandb.log({"step": step, "epoch": epoch, **values})

    def config(self, config: Config, step: int) -> None:
        """Show what the run does: every key of its configuration."""
        self.text("config", f"```\n{as_yaml(config)}```", step)
        if self._wandb:
            self._wandb.config.update(config.model_dump(mode="json"), allow_val_change=True)

    def text(self, tag: str, text: str, step: int) -> None:
        """Show Markdown in TensorBoard."""
        if self.enabled and (writer := self._open_tensorboard()):
            writer.add_text(tag, text, step)
            writer.flush()

    def image(self, tag: str, image: Image.Image | np.ndarray, step: int) -> None:
        """Show a picture: PIL, or uint8 of shape (height, width, 3)."""
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if self.enabled and (writer := self._open_tensorboard()):
            writer.add_image(tag, pixels, step, dataformats="HWC")
            writer.flush()
        if self._wandb:
            import wandb

            self._wandb.log({"step": step, tag: wandb.Image(pixels)})

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, so that a resumed run has each step once. Call it first."""
        assert self._writer is None and self._lines is None, "rewind comes before anything is logged"
        if not self.enabled:
            return
        self._purge_step, metrics = step + 1, self.run / METRICS
        if metrics.exists():
            kept = [line for line in read_metrics(metrics) if line["step"] <= step]
            write_whole(metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def close(self) -> None:
        if self._lines:
            self._lines.close()
        if self._writer:
            self._writer.close()
        if self._wandb:
            self._wandb.finish()

    def _open_tensorboard(self) -> "SummaryWriter | None":
        if self._tensorboard and self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports that not every command needs

            self._writer = SummaryWriter(self.run / "tensorboard", purge_step=self._purge_step)
        return self._writer


class _Lines:
    """Writer at the end of `metrics.jsonl`. The last line is rewritten while calls for its step come in."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.offset = os.lseek(self.file, 0, os.SEEK_END)  # where the last line begins
        self.length = 0
        self.last: dict[str, float] = {}

    def write(self, step: int, epoch: int, values: dict[str, float]) -> None:
        if self.last.get("step") != step:
            self.offset, self.length = self.offset + self.length, 0
            self.last = {"step": step, "epoch": epoch}
        self.last |= values
        shown = {name: value if math.isfinite(value) else None for name, value in self.last.items()}  # JSON has no NaN
        line = (json.dumps(shown) + "\n").encode()
        os.pwrite(self.file, line, self.offset)  # one call, so a kill leaves the old line or the new one
        os.ftruncate(self.file, self.offset + len(line))
        self.length = len(line)

    def close(self) -> None:
        os.close(self.file)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a `metrics.jsonl`, without any that a power cut left torn."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def _start_wandb(run: Path) -> Any:
    """Start a run on Weights & Biases, or the one that this folder's earlier starts logged to: its id is kept.

    A resumed run goes back to its checkpoint, and W&B's own steps can't: the x-axis is our `step`.
    """
    import wandb

    run.mkdir(parents=True, exist_ok=True)
    kept = run / WANDB_ID
    if not kept.exists():
        write_whole(kept, secrets.token_hex(8))
    project = os.environ.get("WANDB_PROJECT", "imgcap")
    try:
        started = wandb.init(project=project, name=run.name, id=kept.read_text(), resume="allow", dir=run)
    except wandb.Error as error:
        raise UserError(
            f"log.wandb is on, and Weights & Biases can't be reached ({error}); run wandb login, set "
            "WANDB_MODE=offline to send the run later, or set log.wandb=false"
        ) from None
    started.define_metric("*", step_metric="step")
    return started
