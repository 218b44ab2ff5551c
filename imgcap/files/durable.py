"""Files that are whole or not there at all, also after a power cut."""

import hashlib
import os
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, bring it to the disk, then rename it."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    rename(temporary, path)


def rename(temporary: Path, path: Path) -> None:
    """Give a file, already on the disk, its name; the name is on the disk too when this returns."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
