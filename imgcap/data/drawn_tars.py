"""The samples of tars that are drawn for ever: fetched and unpacked ahead, and what is no sample named once.

Tars are read as indexing reads them (shards/tar_samples.py). One that holds no sample is not read again, and a stream
of nothing else ends.
"""

import bz2
import gzip
import lzma
import shlex
import shutil
import subprocess
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from imgcap.errors import UserError
from imgcap.files.fetch import fetch, is_address
from imgcap.shards.tar_members import compression_of
from imgcap.shards.tar_samples import CAPTIONS, TarAccount, TarSample, TarSamples

PIPE = "pipe:"
LOST = 10  # tars in a row that can't be had or read before the stream gives up
_PIECE = 1 << 20  # bytes
_NAMED = 3  # samples of a tar and a reason that are named one by one
_OPENED_BY: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


class DrawnTars:
    """The samples of tars that are drawn out of `tars` many, with what was met in place of samples."""

    def __init__(self, tars: int) -> None:
        self._tars = tars
        self._empty: set[str] = set()  # tars that hold no sample
        self._left_out = defaultdict[str, set[str]](set)  # by tar, keys whose samples can't be used
        self._told: Counter[tuple[str, str]] = Counter()  # what was skipped, by tar and reason
        self._suffixes: set[str] = set()
        self._said: set[str] = set()

    def samples(self, drawn: Iterator[str]) -> Iterator[tuple[str, TarSample]]:
        """Yield the samples of tar after tar, each with its tar; what can't be had or read is named on stderr.

        Raises `UserError` where LOST tars in a row can't be read, and where none of all has a sample.
        """
        lost = 0
        with TemporaryDirectory() as folder:
            for tar, path, failure in _ahead(self._worth_reading(drawn), Path(folder)):
                found = False
                try:
                    if path is not None:
                        with path.open("rb") as file:
                            samples = TarSamples(file, tar)
                            for sample in samples.read(self._left_out[tar]):
                                found = True
                                yield tar, sample
                        self._tell(tar, samples.account)
                        failure = failure or samples.account.damage
                except OSError as error:
                    failure = error.strerror or str(error)
                finally:
                    if path is not None and path.parent == Path(folder):
                        path.unlink(missing_ok=True)
                if failure:
                    self._say(f"{tar}, or what is left of it: {failure}")
                    lost = 0 if found else lost + 1
                    if lost >= LOST:
                        raise UserError(f"{lost} tars in a row could not be read, the last was {tar}: {failure}")
                elif found:
                    lost = 0
                else:
                    self._empty.add(tar)
                    self._refuse_nothing(tar)

    def leave_out(self, tar: str, key: str, reason: str) -> None:
        """Take no sample of this key again: it can't be used, for a reason that was found only now."""
        if key not in self._left_out[tar]:
            self._left_out[tar].add(key)
            self._told[tar, reason] += 1
            if self._told[tar, reason] <= _NAMED:
                more = ", and so are others of this tar" if self._told[tar, reason] == _NAMED else ""
                _tell(f"sample {key} of {tar}: {reason}{more}")

    def _worth_reading(self, drawn: Iterator[str]) -> Iterator[str]:
        for tar in drawn:
            if len(self._empty) == self._tars:
                return
            if tar not in self._empty:
                yield tar

    def _tell(self, tar: str, account: TarAccount) -> None:
        """Say, once for each tar, what was skipped in it."""
        self._suffixes |= account.suffixes
        names = defaultdict(list)
        for item in account.skipped:
            names[item.reason].append(item.file_name.removeprefix(f"{tar}/"))
        for reason, found in names.items():
            if not self._told[tar, reason]:
                self._told[tar, reason] = len(found)
                more = ", …" if len(found) > _NAMED else ""
                _tell(f"{len(found):,} × {reason}, in {tar}: {', '.join(found[:_NAMED])}{more}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _tell(what)

    def _refuse_nothing(self, tar: str) -> None:
        """Raise `UserError` where all tars are known to hold no sample."""
        if len(self._empty) < self._tars:
            return
        reasons = Counter[str]()
        for (_, reason), times in self._told.items():
            reasons[reason] += times
        told = ", ".join(f"{times:,} × {reason}" for reason, times in reasons.most_common(3)) or "they hold no files"
        suffixes = ", ".join(sorted(f".{suffix}" for suffix in self._suffixes)[:20])
        of = tar if self._tars == 1 else f"{self._tars:,} tars such as {tar}"
        raise UserError(
            f"no sample of {of} has both an image and a caption that can be used: {told}; "
            f"{f'the suffixes met are {suffixes}, and ' if suffixes else ''}captions are read from "
            f"{', '.join(f'.{kind}' for kind in CAPTIONS)}"
        )


def _ahead(tars: Iterator[str], folder: Path) -> Iterator[tuple[str, Path | None, str]]:
    """Yield each tar with its path and what went wrong, if anything; the next one is fetched while one is read.

    The thread is one that nobody waits for: a process that ends leaves a fetch unfinished.
    """
    fetched: Queue[tuple[str, Path | None, str]] = Queue(maxsize=1)

    def fetch_all() -> None:
        for number, tar in enumerate(tars):
            try:
                fetched.put((tar, *_here(tar, folder, str(number))))
            except (UserError, OSError) as error:
                if not folder.is_dir():  # the reader has left
                    return
                fetched.put((tar, None, getattr(error, "strerror", None) or str(error)))

    Thread(target=fetch_all, name="tars ahead", daemon=True).start()
    while True:
        yield fetched.get()


def _here(tar: str, folder: Path, name: str) -> tuple[Path, str]:
    """Bring a tar into `folder` unless it is on this machine, and unpack it; return its path and what went wrong."""
    path, failure = folder / name, ""
    if tar.startswith(PIPE):
        failure = _run(tar.removeprefix(PIPE), path)
    elif is_address(tar):
        fetch(tar, path)
    else:
        path = Path(tar)
    with path.open("rb") as file:
        program = compression_of(file)
    if program is None:
        return path, failure
    if program not in _OPENED_BY:
        raise UserError(
            f"it is compressed, and {program} isn't read here; unpack it with: {program} -d {shlex.quote(tar)}"
        )
    plain = folder / f"{name}.tar"
    _unpack(path, _OPENED_BY[program], plain)
    if path.parent == folder:
        path.unlink()
    return plain, failure


def _run(command: str, path: Path) -> str:
    """Write what a command of the shell says to a file; return what went wrong."""
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process, path.open("wb") as file:
        assert process.stdout is not None
        shutil.copyfileobj(process.stdout, file)
    return f"it ended with exit code {process.returncode}" if process.returncode else ""


def _unpack(packed: Path, opened_by: Callable[[Path], Any], path: Path) -> None:
    """Write a compressed tar's bytes to `path`; of one that is cut or damaged, those before that place."""
    with opened_by(packed) as source, path.open("wb") as file:
        while True:
            try:
                piece = source.read(_PIECE)
            except (EOFError, OSError, zlib.error, lzma.LZMAError):
                return
            if not piece:
                return
            file.write(piece)


def _tell(what: str) -> None:
    print(f"skipped: {what}", file=sys.stderr, flush=True)
