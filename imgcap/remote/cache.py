"""Fetched files on this machine, shared by all its processes and bounded in size.

A file is named by its sha256. It gets that name once its bytes have been checked, so whatever has it can be trusted; a
lock for each lets one process fetch it while the others wait.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from imgcap.errors import UserError
from imgcap.remote.fetch import fetch

SUFFIX, UNFINISHED, LOCK = ".whole", ".part", ".lock"


def cache_root() -> Path:
    """`$IMGCAP_CACHE`, else `$XDG_CACHE_HOME/imgcap`, else `~/.cache/imgcap`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("IMGCAP_CACHE") or Path(base) / "imgcap")


class Cache:
    """Files of at most `bound` bytes together; those that were asked for longest ago go first.

    One that is removed while a process has it open stays readable there.
    """

    def __init__(self, folder: Path, bound: int):
        self.folder, self.bound = folder, bound

    def get(self, address: str, size: int, sha256: str) -> Path:
        """The file with these bytes, fetched if it isn't here. Raises `Unreachable`, `UserError` for want of room."""
        path = self.folder / (sha256 + SUFFIX)
        if self._touched(path):
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / (sha256 + LOCK)):
            if not self._touched(path):
                unfinished = self.folder / (sha256 + UNFINISHED)
                self._make_room(size, address)
                fetch(address, unfinished, size, sha256)
                unfinished.replace(path)
        return path

    def _touched(self, path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size: int, address: str) -> None:
        """Remove what was used longest ago until `size` bytes more fit."""
        if size > self.bound:
            raise UserError(
                f"{address} has {size / 1e9:.2f} GB, more than the {self.bound / 1e9:.2f} GB that may be kept; "
                "raise data.cache_gb"
            )
        with FileLock(self.folder / "room.lock"):
            kept = sorted(self._kept(), reverse=True)  # the last used first
            for _, bytes_, path in kept:
                size += bytes_
                if size > self.bound:
                    path.unlink(missing_ok=True)

    def _kept(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("*" + SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path
