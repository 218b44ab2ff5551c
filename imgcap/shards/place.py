"""Where a shard set lies: in a folder of this machine, or behind an address that is fetched from."""

import os
from pathlib import Path

from imgcap.errors import UserError
from imgcap.files.cache import Cache, cache_root
from imgcap.files.fetch import is_address, read_address

CACHE_GB = 20.0


class Place:
    """Finds the files of a shard set. Those behind an address come into a cache when they are asked for.

    `cache` is a folder, `$IMGCAP_CACHE/shards` or the like where none is named; `cache_gb` bounds what it holds.
    """

    def __init__(self, address: Path | str, cache: Path | str | None = None, cache_gb: float = CACHE_GB):
        self.address = os.path.expanduser(str(address)).rstrip("/") or "/"
        self.is_remote = is_address(self.address)
        self.cache = Cache(Path(cache) if cache else cache_root() / "shards", int(cache_gb * 1e9))

    @classmethod
    def of(cls, where: "Place | Path | str") -> "Place":
        """Make a place of a folder or address, with the usual cache; one that is given is returned as it is."""
        return where if isinstance(where, Place) else cls(where)

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, file: str) -> str:
        """The path or address of a file; a set on this machine may also name files that lie behind an address."""
        if self.is_remote:
            return f"{self.address}/{file}"
        return file if is_address(file) else str(Path(self.address) / file)

    def read(self, file: str) -> bytes:
        """Read a small file whole; FileNotFoundError where there is none, `UserError` where there is no folder."""
        where = self / file
        if is_address(where):
            return read_address(where)
        if not Path(self.address).is_dir():
            raise UserError(f"there is no shard folder {self}; build one with imgcap build SOURCE --out {self}")
        return Path(where).read_bytes()

    def path(self, file: str, size: int, sha256: str) -> Path:
        """The path of a file on this machine, fetched where it is remote; `Unreachable` where it can't be had."""
        where = self / file
        return self.cache.get(where, size, sha256) if is_address(where) else Path(where)
