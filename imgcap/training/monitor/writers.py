"""The numbers, texts and pictures of a run: `metrics.jsonl`, TensorBoard and, if asked for, Weights & Biases."""

import json
import math
import os
import secrets
from functools import reduce
from operator import getitem
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
# TensorBoard puts its groups in the order of their names, so they are numbered: the first is what one looks for first.
_GROUP_NAMES = ("loss", "scores", "words", "optimiser", "speed", "data", "drawn captions")
_LOSSES, _SCORES, _WORDS, _OPTIMISER, _SPEED, _DATA, _DRAWN = (
    f"{place} {group}" for place, group in enumerate(_GROUP_NAMES, start=1)
)
_SHOWN_AS = {  # of TensorBoard's tags, where the group isn't the name's own first part
    "train/loss": f"{_LOSSES}/train",
    "train/objective": f"{_LOSSES}/train (what is minimised)",
    "train/accuracy": f"{_WORDS}/share predicted right",
    "train/top5_accuracy": f"{_WORDS}/share among the likeliest 5",
    "train/images": f"{_DATA}/images",
}
_GROUPS = {"train": _OPTIMISER, "optim": _OPTIMISER, "perf": _SPEED, "data": _DATA, "sampled": _DRAWN}
_HIDDEN = ("train/batch_hash",)  # no quantity: it is for comparing lines of metrics.jsonl
MAIN_VALUES = (  # of a configuration: the columns by which TensorBoard compares runs
    "model.encoder.name", "model.encoder.weights", "model.encoder.train", "model.decoder.type",
    "model.decoder.hidden_dim", "model.decoder.dropout", "data.shards", "data.image_size", "data.augment",
    "vocab.min_count", "train.epochs", "train.global_batch", "train.precision", "train.label_smoothing", "optim.lr",
    "optim.encoder_lr", "optim.weight_decay", "optim.schedule", "optim.warmup", "seed",
)  # fmt: skip


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
                if name not in _HIDDEN:
                    writer.add_scalar(shown_as(name), float(value), step)
            writer.flush()
        if self._wandb:
            self._wandb.log({"step": step, "epoch": epoch, **values})

    def config(self, config: Config, step: int) -> None:
        """Show what the run does: every key of its configuration, and the main ones beside its last scores."""
        self.text("config", f"```\n{as_yaml(config)}```", step)
        if self.enabled and (writer := self._open_tensorboard()):
            from torch.utils.tensorboard.summary import hparams

            split = config.eval.split
            results = [shown_as(f"{split}/{name}") for name in ("CIDEr", "BLEU-4", "loss")]
            for summary in hparams(main_values(config), dict.fromkeys(results, 0.0)):  # its writer would make a new run
                writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]
            writer.flush()
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


def shown_as(name: str) -> str:
    """Name a number of `metrics.jsonl` as TensorBoard shows it: in a group, and losses in the first."""
    group, _, last = name.partition("/")
    if name in _SHOWN_AS or not last:
        return _SHOWN_AS.get(name, name)
    if group in _GROUPS:
        return f"{_GROUPS[group]}/{last.replace('_', ' ')}"
    return f"{_LOSSES}/{group}" if last == "loss" else f"{_SCORES}/{group} {last}"  # of a split that was evaluated


def main_values(config: Config) -> dict[str, bool | int | float | str]:
    """The values of `MAIN_VALUES` that a configuration has, by their dotted keys."""
    values: dict[str, bool | int | float | str] = {}
    for key in MAIN_VALUES:
        *sections, last = key.split(".")
        section: dict[str, Any] = reduce(getitem, sections, config.model_dump(mode="json"))
        if last in section:  # a decoder of another type has other keys
            value = section[last]
            values[key] = value if isinstance(value, bool | int | float) else str(value or "none")
    return values


class _Lines:
    """Writer at the end of `metrics.jsonl`. The last line is rewritten while calls for its step come in.

    The last line of an earlier start is taken over: an evaluation redone at its step adds to it.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        written = path.read_bytes()
        self.offset = written.rfind(b"\n", 0, -1) + 1  # where the last line begins
        self.last = _values_of(written[self.offset :])
        self.length = len(written) - self.offset if self.last else 0

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


def _values_of(line: bytes) -> dict[str, float]:
    """Values of a line of `metrics.jsonl`; none of one that a power cut left torn."""
    try:
        values = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        values = None
    found = values if isinstance(values, dict) else {}
    return {name: math.nan if value is None else value for name, value in found.items()}


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
