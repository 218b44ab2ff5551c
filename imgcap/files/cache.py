"""A cache of fetched files on this machine, shared by all its processes and bounded in size.

A file is named by its sha256. It gets that name once its bytes have been checked, so whatever has it can be trusted; a
lock for each lets one process fetch it while the others wait.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from imgcap.files.fetch import Unreachable, fetch
from imgcap.files.locks import Lock

SUFFIX, UNFINISHED, LOCK = ".whole", ".part", ".lock"


def cache_root() -> Path:
    """The folder of all that imgcap caches: `$IMGCAP_CACHE`, `$XDG_CACHE_HOME/imgcap` or `~/.cache/imgcap`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("IMGCAP_CACHE") or Path(base) / "imgcap")


class Cache:
    """A cache of files of at most `bound` bytes together; those that were asked for longest ago go first.

    One that is removed while a process has it open stays readable there.
    """

    def __init__(self, folder: Path, bound: int):
        self.folder, self.bound = folder, bound

    def get(self, address: str, size: int, sha256: str) -> Path:
        """Return the file with these bytes, fetched if it isn't here. Raises `Unreachable`, also for want of room."""
        path = self.folder / (sha256 + SUFFIX)
        try:
            if self._touched(path):
                return path
            self.folder.mkdir(parents=True, exist_ok=True)
            with Lock(self.folder / (sha256 + LOCK)):
                if not self._touched(path):
                    unfinished = self.folder / f"{sha256}-{size}{UNFINISHED}"
                    self._make_room(size, address, unfinished)
                    fetch(address, unfinished, size, sha256)
                    unfinished.replace(path)
        except OSError as error:
            why = error.strerror or error
            raise Unreachable(f"{address} can't be kept in {self.folder}: {why}; name another data.cache") from None
        return path

    def _touched(self, path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, size: int, address: str, unfinished: Path) -> None:
        """Remove what was used longest ago until `size` bytes more fit beside what others are fetching."""
        if size > self.bound:
            raise Unreachable(
                f"{address} has {size / 1e9:.2f} GB, more than the {self.bound / 1e9:.2f} GB that may be kept; "
                "raise data.cache_gb"
            )
        with Lock(self.folder / "room.lock"):
            unfinished.touch()  # from now on others count it
            for _, held, path in sorted(self._held(unfinished), key=lambda held: held[0], reverse=True):
                size += held
                if size > self.bound and path is not None:
                    path.unlink(missing_ok=True)

    def _held(self, mine: Path) -> Iterator[tuple[float, int, Path | None]]:
        """Yield when each other file was used, its bytes, and its path unless it is being fetched and has to stay."""
        for path in [*self.folder.glob("*" + SUFFIX), *self.folder.glob("*" + UNFINISHED)]:
            sha256, _, size = path.stem.partition("-")
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if path == mine:
                    continue
                if path.suffix == UNFINISHED and self._is_locked(sha256):
                    yield math.inf, int(size), None
                else:
                    yield found.st_mtime, found.st_size, path

    def _is_locked(self, sha256: str) -> bool:
        lock = Lock(self.folder / (sha256 + LOCK))
        is_free = lock.acquire(wait=False)
        lock.release()
        return not is_free
