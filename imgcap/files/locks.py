"""Locks on files, by which processes of one folder keep out of each other's way."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from imgcap.errors import UserError
from imgcap.files.durable import tell_once

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class Lock:
    """An exclusive lock on a file, free again where its process dies, or nobody knows this object any more.

    On a file system without locks it is always free, and a line on stderr says so, once a process.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; without `wait`, False where another holder has it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            tell_once(
                "lock",
                f"the file system of {self.path.parent} has no locks ({error.strerror}): see to it yourself "
                "that no two processes work there at once",
            )
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *details: object) -> None:
        self.release()


@contextmanager
def alone_in(folder: Path, program: str) -> Iterator[None]:
    """Keep other processes of one program out of a folder for a while; `UserError` where one is at work there."""
    lock = Lock(folder / f".{program}.lock")
    if not lock.acquire(wait=False):
        raise UserError(f"another imgcap {program} is writing into {folder}; wait for it, or choose another --out")
    try:
        yield
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()
