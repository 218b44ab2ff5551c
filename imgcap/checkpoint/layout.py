"""The files under `checkpoints/`, and the record by which each checkpoint's folder proves itself whole.

- `step-00001234/`: `model.safetensors`, `training.pt`, `state.json`, `files.json`
- `step-00001234.replaced/`: the same step saved earlier; there only while it is being replaced
- `latest`, `best`: text files that hold a folder's name
- `.saving-*`: a save that never finished; the next one removes it
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.files.durable import sha256_of, sha256_of_bytes

MODEL, TRAINING, STATE, RECORD = "model.safetensors", "training.pt", "state.json", "files.json"
LATEST, BEST = "latest", "best"
REPLACED = ".replaced"
UNFINISHED = ".saving-"
FORMAT = 2  # 2: the optimiser by parameter name, whole
_FOLDER = re.compile(r"^step-(\d{8,})(\.replaced)?$")


class DamagedCheckpoint(Exception):
    """A checkpoint that can't be trusted; the message says which file, and why."""


@dataclass(frozen=True)
class Record:
    """The content of `files.json`: bytes and sha256 of each other file, and the folder's place in the order of saves.

    The order counts saves, not steps: a run that went back to an earlier checkpoint goes on from what it saved last.
    """

    order: int
    files: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, folder: Path, order: int) -> "Record":
        """Make the record of a folder whose other files are written."""
        return cls(order, fingerprints(folder, (MODEL, TRAINING, STATE)))

    def text(self) -> str:
        """The record as its file holds it, sealed."""
        body: dict[str, Any] = {"format": FORMAT, "order": self.order, "files": self.files}
        return json.dumps(body | {"seal": seal_of(body)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a folder's record; `DamagedCheckpoint` where it is missing, unreadable or not what was written."""
        try:
            body = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            seal = body.pop("seal")
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{RECORD} is missing") from None
        except (OSError, ValueError, AttributeError, KeyError, RecursionError):  # ValueError: no UTF-8, no JSON
            raise DamagedCheckpoint(f"{RECORD} can't be read") from None
        if seal != seal_of(body):
            raise DamagedCheckpoint(f"{RECORD} has changed since it was written")
        if body["format"] != FORMAT:
            raise DamagedCheckpoint(f"{RECORD} has format {body['format']}; this version reads {FORMAT}")
        return cls(body["order"], body["files"])

    def verify(self, folder: Path) -> None:
        """Read every byte of the folder's files; `DamagedCheckpoint` names the first that isn't as it was saved."""
        verify(folder, self.files)


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its folder's name."""
    found = _FOLDER.match(folder.name)
    assert found is not None, f"{folder} is no checkpoint's folder"
    return int(found[1])


def by_order(root: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """List the checkpoint folders, last saved first, and those whose record is damaged, each with the reason."""
    sound: list[tuple[int, Path]] = []
    damaged: list[tuple[Path, str]] = []
    for folder in sorted(root.iterdir(), reverse=True) if root.is_dir() else []:
        if not (_FOLDER.match(folder.name) and folder.is_dir()):
            continue
        try:
            sound.append((Record.read(folder).order, folder))
        except DamagedCheckpoint as reason:
            damaged.append((folder, str(reason)))
    return [folder for _, folder in sorted(sound, reverse=True)], damaged


def newest_checkpoint(root: Path) -> Path | None:
    """Find the folder that was saved last, sound or not; None where nothing was ever saved."""
    saved, damaged = by_order(root)
    return next(iter([*saved, *(folder for folder, _ in damaged)]), None)


def read_pointer(root: Path, pointer: str) -> Path | None:
    """The folder that `latest` or `best` names; None where there is no such pointer or folder."""
    try:
        name = (root / pointer).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    candidates = [root / name, root / (name + REPLACED)] if _FOLDER.match(name) else []
    return next((folder for folder in candidates if folder.is_dir()), None)


def fingerprints(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Take size in bytes and sha256 of some of a folder's files."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}


def verify(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Read every byte of files; `DamagedCheckpoint` names the first whose fingerprint is another."""
    for name, expected in files.items():
        try:
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                raise DamagedCheckpoint(f"{name} has {size} bytes, not {expected['bytes']}")
            if sha256_of(folder / name) != expected["sha256"]:
                raise DamagedCheckpoint(f"the sha256 of {name} isn't the one it was saved with")
        except FileNotFoundError:
            raise DamagedCheckpoint(f"{name} is missing") from None
        except OSError as error:
            raise DamagedCheckpoint(f"{name} can't be read: {error.strerror}") from None


def seal_of(body: Mapping[str, Any]) -> str:
    """Hash what a record says, for the record itself: no flipped bit in it passes."""
    return sha256_of_bytes(json.dumps(body, sort_keys=True).encode())
