"""Arrays in a file of safetensors that processes map into their memory: all of one machine share a single copy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from imgcap.files.durable import write_whole

_HASH = "sha256"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays with their hash, whole or not at all, but for a power cut; OSError where that fails."""
    write_whole(path, save(dict(arrays), {_HASH: hash_of(arrays)}), durable=False)


def map_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Map what `write_arrays` wrote; None where there is no such file, or not with these bytes."""
    try:
        with safe_open(path, framework="pt") as file:  # numpy's would copy
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return arrays if metadata.get(_HASH) == hash_of(arrays) else None


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash arrays with their names, types and shapes, in any order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()
