"""Loading a checkpoint once every byte has been checked, or else the newest one that is whole."""

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError

from imgcap.checkpoint.layout import BEST, MODEL, STATE, TRAINING, DamagedCheckpoint, Record, by_order, read_pointer
from imgcap.errors import UserError, is_main_process


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: what `save_checkpoint` was given, all tensors on the CPU, and the folder it came from."""

    step: int
    model: dict[str, torch.Tensor]
    training: dict[str, Any]
    state: dict[str, Any]
    path: Path


def load_checkpoint(root: Path, which: Literal["latest", "best"] = "latest") -> Checkpoint:
    """Load the newest (or the best) checkpoint under `root`, or else the newest that is whole.

    Names on stderr what was passed over and why. Raises `UserError` where nothing can be loaded.
    """
    saved, damaged = by_order(root)
    for folder, reason in damaged:
        _pass_over(folder, reason)
    best = read_pointer(root, BEST) if which == BEST else None
    for folder in sorted(saved, key=lambda folder: folder != best):  # stable: the best, then the newest
        try:
            return _load(folder)
        except DamagedCheckpoint as reason:
            _pass_over(folder, str(reason))
    if saved or damaged:
        raise UserError(f"every checkpoint in {root} is damaged; restore one from a copy, or start anew")
    raise UserError(f"no checkpoint in {root}; train first, or name another run")


def load_checkpoint_folder(path: Path) -> Checkpoint:
    """Load a checkpoint by its folder. Raises `UserError` where it is missing or damaged."""
    if not path.is_dir():
        raise UserError(f"no checkpoint folder {path}; name a run, or one of its checkpoints/step-XXXXXXXX")
    try:
        return _load(path)
    except DamagedCheckpoint as reason:
        raise UserError(f"{path} is no sound checkpoint: {reason}; choose another one beside it") from None


def _load(folder: Path) -> Checkpoint:
    Record.read(folder).verify(folder)
    try:
        training = torch.load(folder / TRAINING, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise DamagedCheckpoint(f"{TRAINING} holds more than tensors and plain values, or less") from error
    try:
        model = safetensors.torch.load_file(folder / MODEL)
        saved = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return Checkpoint(saved["step"], model, training, saved["state"], folder)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedCheckpoint(f"{MODEL} or {STATE} isn't one that imgcap wrote") from error


def _pass_over(folder: Path, reason: str) -> None:
    if is_main_process():
        print(f"passed over checkpoint {folder}: {reason}", file=sys.stderr, flush=True)
