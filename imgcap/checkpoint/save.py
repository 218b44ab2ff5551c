"""Saving checkpoints so that, whenever the process dies, every folder with its final name is whole."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from imgcap.checkpoint import layout
from imgcap.errors import UserError
from imgcap.files.durable import sync, write_whole

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded")


def save_checkpoint(
    root: Path,
    step: int,
    model: Mapping[str, torch.Tensor],
    training: Mapping[str, Any],
    state: Mapping[str, Any],
    keep: int,
    best: bool = False,
) -> Path:
    """Write `root/step-XXXXXXXX`, point `latest` (and `best`) at it, keep the last `keep` and the best.

    `training` holds tensors and plain values only, `state` what JSON can hold. One process at a time
    saves to a root. Raises `UserError` on a full disk; earlier checkpoints stay as they are.
    """
    with _full_disk_named(root):
        root.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(root)
        saved, _ = layout.by_order(root)
        order = layout.Record.read(saved[0]).order + 1 if saved else 0
        unfinished = root / f"{layout.UNFINISHED}{layout.folder_name(step)}"
        try:
            unfinished.mkdir()
            _write_files(unfinished, model, dict(training), {"step": step, "state": dict(state)}, order)
            pointers = [layout.LATEST, layout.BEST] if best else [layout.LATEST]
            for pointer in pointers:  # their bytes before any renaming, which no full disk can stop
                write_whole(root / f"{layout.UNFINISHED}{pointer}", layout.folder_name(step) + "\n")
            folder = put_in_place(unfinished, root / layout.folder_name(step))
            for pointer in pointers:
                (root / f"{layout.UNFINISHED}{pointer}").replace(root / pointer)
            sync(root)
        except BaseException:
            _remove_unfinished(root)
            raise
        _retain(root, keep)
    return folder


def point_at_best(root: Path, step: int) -> bool:
    """Let `best` name the checkpoint of a step. Where that isn't there it names none, and this is False."""
    name, pointed = layout.folder_name(step), layout.read_pointer(root, layout.BEST)
    if pointed is not None and layout.step_of(pointed) == step:
        return True
    if not any((root / folder).is_dir() for folder in (name, name + layout.REPLACED)):
        (root / layout.BEST).unlink(missing_ok=True)
        return False
    write_whole(root / layout.BEST, name + "\n")
    return True


def _write_files(
    folder: Path, model: Mapping[str, torch.Tensor], training: dict[str, Any], state: dict[str, Any], order: int
) -> None:
    safetensors.torch.save_file(without_sharing(model), folder / layout.MODEL)
    with (folder / layout.TRAINING).open("wb") as file:  # given a path, torch.save would swallow why a write failed
        torch.save(training, file)
    # What weights_only refuses must not first be noticed on the day of the resume.
    torch.load(folder / layout.TRAINING, map_location="cpu", weights_only=True, mmap=True)
    (folder / layout.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
    write_whole(folder / layout.RECORD, layout.Record.of(folder, order).text())


def without_sharing(model: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy weights to the CPU, tied ones as two tensors: safetensors refuses two names for one storage."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return tensors


def put_in_place(unfinished: Path, folder: Path) -> Path:
    """Give a finished folder its name; an earlier one of that name stays loadable until that is done."""
    replaced = folder.with_name(folder.name + layout.REPLACED)
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    unfinished.rename(folder)
    sync(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return folder


def _retain(root: Path, keep: int) -> None:
    """Remove all but the last `keep` saves and the best; a folder with no sound record counts as none."""
    saved, damaged = layout.by_order(root)
    kept = {*saved[:keep], layout.read_pointer(root, layout.BEST)}
    for folder in [*saved, *(folder for folder, _ in damaged)]:
        if folder not in kept:
            # Renamed first: a kill in the middle must not leave half a checkpoint under a good name.
            removed = root / f"{layout.UNFINISHED}{folder.name}"
            folder.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)


def _remove_unfinished(root: Path) -> None:
    for leftover in root.glob(f"{layout.UNFINISHED}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def _full_disk_named(root: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise UserError(
            f"disk full: no checkpoint could be saved in {root}; the earlier ones are intact, "
            "so make room (checkpoint.keep=1 needs the least) and run the same command again"
        ) from error


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it wraps, is of a full disk; torch.save and safetensors wrap it."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in _FULL_DISK
        if full or any(words in str(error) for words in _FULL_DISK_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
