"""Arrays in a file of safetensors that processes map into their memory: all of one machine share a single copy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imgcap.files.durable import rename, temporary_name

_HASH = "sha256"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays with their hash, whole or not at all; OSError where that fails. A power cut may tear the file."""
    temporary = temporary_name(path)
    try:
        save_file(dict(arrays), temporary, {_HASH: hash_of(arrays)})
        rename(temporary, path, durable=False)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(str(error)) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
