"""Writing files so that they are whole or not there at all, also after a power cut."""

import errno
import hashlib
import os
import re
import sys
from pathlib import Path

from imgcap.errors import is_main_process

TEMPORARY = re.compile(r"(\.\d+)?\.tmp$")  # how a temporary name ends; imgcap 0.1.0 wrote no number
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of file systems that keep no folder on a disk
_TOLD: set[str] = set()


def write_whole(path: Path, data: bytes | str, durable: bool = True) -> None:
    """Write bytes, or a text in UTF-8, under a temporary name and rename it; several processes may do so at once.

    Unless `durable`, a power cut may lose or tear the file, and nothing waits for the disk.
    """
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        rename(temporary, path, durable)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that somebody gave
        raise


def write_hashed(path: Path, data: bytes) -> str:
    """Write a file whole; return the sha256 of its bytes, in hexadecimal."""
    write_whole(path, data)
    return sha256_of_bytes(data)


def temporary_name(path: Path) -> Path:
    """The name beside `path` that this process, and no other, writes it under."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def rename(temporary: Path, path: Path, durable: bool = True) -> None:
    """Give a written file its name; where `durable`, its bytes are on the disk before, and the name is afterwards."""
    if durable:
        sync(temporary)
    os.replace(temporary, path)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file's or folder's bytes to the disk; a file system that can't is named on stderr, once a process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        tell_once(
            "sync",
            f"the file system of {path} can't bring it to the disk ({error.strerror}): after a power cut what "
            "was written last may be missing",
        )
    finally:
        os.close(descriptor)


def tell_once(what: str, line: str) -> None:
    """Say on stderr, in the main process and once of each sort, what a file system can't promise."""
    if what not in _TOLD and is_main_process():
        _TOLD.add(what)
        print(f"warning: {line}", file=sys.stderr, flush=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """The sha256 of bytes in memory, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
