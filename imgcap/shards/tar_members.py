"""The members of a tar that others wrote: their keys as WebDataset has them, and where their data lies."""

import io
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

_METADATA = re.compile(r"__[^/]*__($|/)")  # what WebDataset leaves out, by the beginning of its name
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 512
_END = bytes(2 * _BLOCK)  # what closes a tar, at least
# What tarfile raises for headers that are cut, or hold what no program writes.
DAMAGED = (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError, RecursionError, OSError)


class Member(NamedTuple):
    """Where the data of a member lies, in bytes; `lack` is why it is not to be read, `target` the name of a link's."""

    name: str
    offset: int
    size: int
    lack: str = ""
    target: str = ""


class BehindTheEndError(tarfile.ReadError):
    """A tar that is whole, and something more in its file."""


def members_of(file: BinaryIO, named: dict[str, Member]) -> Iterator[tuple[str, str, Member]]:
    """Yield key, suffix and place of the members that have a key; `named` gets all files and links by their names.

    Raises one of DAMAGED where the tar is cut or damaged, and `BehindTheEndError` where it is whole, and more follows.
    """
    size, place = file.seek(0, io.SEEK_END), -1
    file.seek(0)
    folders: dict[str, tuple[str, str]] = {}
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it keeps all of them, for nobody
            if not place < tar.offset <= size:
                raise tarfile.ReadError("it ends in the middle of a member")
            place = tar.offset
            if not (info.isreg() or info.islnk() or info.issym()):
                continue
            folder, last = posixpath.split(info.name)
            stem, dot, suffix = last.partition(".")
            if folder not in folders:
                folders[folder] = _folder(folder)
            within, lack = folders[folder]
            member = Member(info.name, info.offset_data, info.size, lack or _lack(info), _target(info, folder))
            named[info.name.removeprefix("./")] = member
            if stem and dot and not _METADATA.match(info.name):
                yield within + stem, suffix.lower(), member
        _check_end(file, tar.offset, size)


def _check_end(file: BinaryIO, end: int, size: int) -> None:
    """Raise `tarfile.ReadError` where something else stands at the end of a tar than what closes it."""
    file.seek(end)
    closed = file.read(_BLOCK) == bytes(_BLOCK)
    rest = iter(lambda: file.read(1 << 20), b"")
    if size - end < len(_END) or not closed or any(piece.strip(b"\0") for piece in rest):
        error = BehindTheEndError if closed and size - end >= len(_END) else tarfile.ReadError
        raise error(f"what stands at byte {end} is neither a member nor the end")


def compression_of(file: BinaryIO) -> str | None:
    """The program that unpacks a compressed file, by its first bytes; None for one that isn't compressed."""
    file.seek(0)
    head = file.read(6)
    return next((program for magic, program in _COMPRESSED.items() if head.startswith(magic)), None)


def _folder(name: str) -> tuple[str, str]:
    """What a folder puts before the keys of its members, and why these are not to be read, if they aren't."""
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts  # nobody writes such a name by mistake
    return "" if path == PurePosixPath() else f"{path}/".replace("//", "/"), "unsafe member name" if unsafe else ""


def _lack(info: tarfile.TarInfo) -> str:
    return "sparse member, whose bytes don't lie together; pack it without --sparse" if info.issparse() else ""


def _target(info: tarfile.TarInfo, folder: str) -> str:
    """The name of the member that a link leads to; empty for no link."""
    if info.isreg():
        return ""
    return posixpath.normpath(posixpath.join(folder, info.linkname) if info.issym() else info.linkname)
