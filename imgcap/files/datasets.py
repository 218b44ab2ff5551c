"""Downloading data sets as their publishers give them: fetched, checked, unpacked, and counted at the end."""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgcap.errors import UserError, reason_of
from imgcap.files.fetch import Advance, Unreachable, fetch, is_address
from imgcap.files.locks import alone_in

SOURCES = Path(__file__).with_name("datasets.yaml")
DONE = ".unpacked"  # beside an archive: it has been unpacked
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

Bar = Callable[[str, int | None], Advance]  # shows a bar with a label and a total of bytes


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SourceFile(_Entry):
    """A file of a data set; without `places` somebody has to get it as `by_hand` says."""

    file: str
    places: tuple[str, ...] = Field(default=(), alias="from")
    by_hand: str | None = None
    bytes: int | None = None
    sha256: str | None = None


class Held(_Entry):
    """Files that are there once a data set is unpacked: a pattern, and how many of one folder it finds.

    `others` are patterns of the same files as other publishers pack them, and `name` is what `next` calls their folder.
    """

    path: str
    count: int = 1
    others: tuple[str, ...] = ()
    name: str | None = None

    def found(self, out: Path) -> tuple[Path, int]:
        """The folder that has the most of the files, and how many it has; that of `path` where there are none."""
        best = ((out / self.path).parent, 0)
        for pattern in (self.path, *self.others):
            folders = Counter(path.parent for path in out.glob(pattern))
            best = max([best, *folders.most_common(1)], key=lambda folder: folder[1])
        return best


class Dataset(_Entry):
    about: str
    files: tuple[SourceFile, ...]
    holds: tuple[Held, ...]
    next: str

    def next_line(self, out: Path) -> str:
        """The command that comes next, with the folders as they were found in `out`."""
        return self.next.format(out=out, **{held.name: held.found(out)[0] for held in self.holds if held.name})


def read_datasets(path: Path) -> dict[str, Dataset]:
    """Read the data sets of a YAML file; `UserError` where it is not of the form of `SOURCES`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: Dataset.model_validate(entry) for name, entry in content.items()}
    except (OSError, yaml.YAMLError, AttributeError, ValueError, RecursionError) as error:  # no UTF-8 is a ValueError
        reason = reason_of(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{path} is no list of data sets ({reason}); see imgcap/files/datasets.yaml for one") from None


def download(
    dataset: Dataset, out: Path, instead: Mapping[str, str], bar: Bar, force: bool = False, keep: bool = False
) -> None:
    """Fetch and unpack a data set into the folder `out`; `instead` names other places of its files.

    What is there and sound is left alone. Archives are removed once they are unpacked, unless `keep`. Raises
    `UserError` for a file that can't be had (`Unreachable`), is damaged or has no room.
    """
    unknown = sorted(set(instead) - {entry.file for entry in dataset.files})
    if unknown:
        raise UserError(f"--source {unknown[0]}: the files are {', '.join(entry.file for entry in dataset.files)}")
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out, "download"):
        if force:
            for entry in dataset.files:
                (out / (entry.file + DONE)).unlink(missing_ok=True)
                if entry.places and entry.file not in instead:  # it can be had again
                    (out / entry.file).unlink(missing_ok=True)
        _download(dataset, out, instead, bar, keep)


def _download(dataset: Dataset, out: Path, instead: Mapping[str, str], bar: Bar, keep: bool) -> None:
    waiting = [entry for entry in dataset.files if not (out / (entry.file + DONE)).exists()]
    for entry in waiting:
        if not entry.places and entry.file not in instead and not (out / entry.file).exists():
            raise UserError(f"{entry.file} is not to be had without you: {entry.by_hand}; or put it into {out}")
    _refuse_full_disk(waiting, out, instead)
    for entry in waiting:
        archive = _fetched(entry, out, instead.get(entry.file), bar)
        if entry.file.endswith(ARCHIVES):
            _unpack(archive, out, bar)
            (out / (entry.file + DONE)).touch()
            if archive.parent == out and not keep:
                archive.unlink()


def missing(dataset: Dataset, out: Path) -> list[str]:
    """List what a folder lacks of a data set, a line each; empty where all is there."""
    found = [(held, *held.found(out)) for held in dataset.holds]
    return [
        f"{folder / PurePosixPath(held.path).name}: {count} of {held.count} files"
        for held, folder, count in found
        if count < held.count
    ]


def _refuse_full_disk(entries: list[SourceFile], out: Path, instead: Mapping[str, str]) -> None:
    """Raise `UserError` where there is no room: an archive needs its size, and about as much again unpacked."""
    wanted = 0
    for entry in entries:
        place = instead.get(entry.file)
        local = Path(place) if place and not is_address(place) else out / entry.file
        there = local.stat().st_size if local.exists() else 0
        wanted += (entry.bytes or there) * (2 if entry.file.endswith(ARCHIVES) else 1) - there
    free = shutil.disk_usage(out).free
    if wanted > free:
        needed = f"{free / 1e9:.1f} GB free, and {wanted / 1e9:.1f} GB are needed"
        raise UserError(f"{out} has {needed}; choose another --out")


def _fetched(entry: SourceFile, out: Path, instead: str | None, bar: Bar) -> Path:
    if instead and not is_address(instead):
        local = Path(instead)
        if not local.is_file():
            raise UserError(f"there is no {local}; name the file that stands for {entry.file}")
        return local
    path = out / entry.file
    if path.exists() and not (entry.bytes or entry.sha256):
        return path
    unfinished = path if path.exists() else out / (entry.file + ".part")
    failures = []
    for place in (instead,) if instead else entry.places or (str(path),):
        try:
            fetch(place, unfinished, entry.bytes, entry.sha256, bar(entry.file, entry.bytes))
            unfinished.rename(path)
            return path
        except Unreachable as failure:
            failures.append(str(failure))
    raise Unreachable(f"{'; '.join(failures)}; another place can be named with --source {entry.file}=PLACE")


def _unpack(archive: Path, out: Path, bar: Bar) -> None:
    """Unpack an archive of whichever sort its bytes tell; no member may leave the folder.

    A zip's members and a whole gzip stream are checked by CRC.
    """
    with archive.open("rb") as file:
        start = file.read(64)
    try:
        if start.startswith(b"PK") or zipfile.is_zipfile(archive):
            _unzip(archive, out, bar)
        elif not tarfile.is_tarfile(archive):
            raise UserError(f"{archive} is no archive, or a damaged one: it begins with {start[:16]!r}; fetch it anew")
        else:
            with tarfile.open(archive) as tar:
                advance = bar(f"unpacking {archive.name}", None)
                for member in tar:
                    _refuse_outside(archive, member.name)
                    tar.extract(member, out, filter="data")
                    advance(member.size)
                while tar.fileobj is not None and tar.fileobj.read(1 << 20):  # to the CRC at the end of a gzip stream
                    pass
    except NotImplementedError as error:  # a zip that is packed in a way Python doesn't know
        raise UserError(f"{archive} can't be unpacked here ({error}); unpack it into {out} with another tool") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; without a number it is of the stream
            raise
        raise UserError(
            f"{archive} is damaged ({reason_of(error)}); remove it and run the same command again"
        ) from None


def _unzip(archive: Path, out: Path, bar: Bar) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            _refuse_outside(archive, member.filename)
        size = sum(member.file_size for member in members)
        if size > shutil.disk_usage(out).free:
            raise UserError(f"{archive} holds {size / 1e9:.1f} GB, for which {out} has no room; choose another --out")
        advance = bar(f"unpacking {archive.name}", size)
        for member in members:
            packed.extract(member, out)
            advance(member.file_size)


def _refuse_outside(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} holds {name!r}, a path out of the folder: it is not what it should be; remove it")
