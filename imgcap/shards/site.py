"""The folder that a build writes into: what it may touch there, and what an earlier run has left."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Self

from imgcap.errors import UserError
from imgcap.files.durable import TEMPORARY, sha256_of, write_whole
from imgcap.files.locks import Lock
from imgcap.shards.manifest import MANIFEST_NAME, TOKEN_COUNTS_NAME, BuildSettings, Manifest
from imgcap.shards.writer import FinishedShard

_RECORDS = ".building"  # the settings of the build, and a record for each finished shard
_PLAN = "plan.json"
_OURS = re.compile(
    rf"^((train|val|test)(-\d{{5}}\.tar|\.index\.npz)|{re.escape(MANIFEST_NAME)}|{re.escape(TOKEN_COUNTS_NAME)})"
    rf"({TEMPORARY.pattern}|$)"
)
_OPTIONS = {  # how a setting that differs is called on the command line
    "language": "--language",
    "resize": "--resize",
    "quality": "--quality",
    "shard_mb": "--shard-mb",
    "split_rule": "the splits (--splits, --seed)",
    "records": "the images of the splits (--limit, --captions, --splits)",
    "records_sha256": "the captions, images or splits",
}


class BuildSite:
    """A folder under construction; one process holds it at a time. `finished` is the set where there is no work."""

    def __init__(self, folder: Path, settings: BuildSettings, finished: Manifest | None) -> None:
        self.folder = folder
        self.settings = settings
        self.finished = finished
        self._lock = Lock(folder / _RECORDS / "lock")

    @classmethod
    def enter(cls, folder: Path, settings: BuildSettings, force: bool) -> "BuildSite":
        """Prepare `folder` for a build: an empty one, a set to finish, a finished one, or any other with `force`.

        Raises `UserError` where the folder holds other shards, or another build is writing into it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_indexed(folder)
        if not force and (folder / MANIFEST_NAME).exists():
            manifest = Manifest.load(folder)
            _refuse_others(folder, manifest.settings, settings)
            damaged = first_missing(folder, manifest)
            if damaged is None:
                shutil.rmtree(folder / _RECORDS, ignore_errors=True)  # of a run that was killed behind its manifest
                print(f"{folder} is finished already, nothing to do (--force builds it again)", file=sys.stderr)
                return cls(folder, settings, manifest)
            print(f"{damaged} is missing or damaged: {folder} is built again", file=sys.stderr)
            force = True
        elif not force:
            _refuse_unknown_or_others(folder, settings)
        site = cls(folder, settings, None)
        site._begin(force)
        return site

    def _begin(self, clear: bool) -> None:
        records = self.folder / _RECORDS
        records.mkdir(exist_ok=True)
        if not self._lock.acquire(wait=False):
            raise UserError(f"another build is writing {self.folder}; wait for it, or choose another --out")
        if clear:
            (self.folder / MANIFEST_NAME).unlink(missing_ok=True)  # first: what follows is no set any more
            for path in records.glob("*.json"):
                path.unlink()
        recorded = {path.stem for path in records.glob("*.tar.json")}
        for path in _own_files(self.folder):
            if path.name not in recorded:
                path.unlink()
        write_whole(records / _PLAN, json.dumps(dataclasses.asdict(self.settings)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        for path in _own_files(self.folder):
            if TEMPORARY.search(path.name):
                path.unlink(missing_ok=True)
        self._lock.release()  # before its folder goes: NFS keeps a file that is open
        if kind is None:
            shutil.rmtree(self.folder / _RECORDS, ignore_errors=True)

    def shard_name(self, split: str, number: int) -> str:
        return f"{split}-{number:05d}.tar"

    def finished_shard(self, split: str, number: int, first: int) -> FinishedShard | None:
        """The shard of a number, if an earlier run finished it and it starts at the record `first`."""
        name = self.shard_name(split, number)
        shard = FinishedShard.load(self.folder / _RECORDS / f"{name}.json", self.folder)
        return shard if shard and shard.info.file == name and shard.first == first else None

    def keep(self, shard: FinishedShard) -> None:
        shard.save(self.folder / _RECORDS / f"{shard.info.file}.json")


def first_missing(folder: Path, manifest: Manifest) -> Path | None:
    """The first file of a set that is not there, or not as large as its manifest says. Small files are hashed."""
    hashed = {folder / f"{split}.index.npz": info.index_sha256 for split, info in manifest.splits.items()}
    if manifest.token_counts_sha256:
        hashed[folder / TOKEN_COUNTS_NAME] = manifest.token_counts_sha256
    for path, sha256 in hashed.items():
        if not path.is_file() or sha256_of(path) != sha256:
            return path
    for info in manifest.splits.values():
        for shard in info.shards:
            path = folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.bytes:
                return path
    return None


def _own_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _OURS.match(path.name) and path.is_file())


def _refuse_indexed(folder: Path) -> None:
    """Raise `UserError` where the set in `folder` is an index of tars that lie there: a build would replace them."""
    try:
        infos = Manifest.load(folder).splits.values()
    except UserError:  # none, or a damaged one
        return
    for shard in (shard for info in infos for shard in info.shards if shard.captions):
        if (folder / Path(shard.file).name).is_file():
            raise UserError(
                f"{folder} holds {Path(shard.file).name}, which was indexed there and not built; choose another --out"
            )


def _refuse_unknown_or_others(folder: Path, settings: BuildSettings) -> None:
    records = folder / _RECORDS
    finished = list(records.glob("*.tar.json"))
    if finished:
        try:
            begun = BuildSettings(**json.loads((records / _PLAN).read_bytes()))
        except (OSError, ValueError, TypeError):
            raise UserError(f"{records / _PLAN} is damaged; build {folder} from the start with --force") from None
        _refuse_others(folder, begun, settings)
    elif not records.exists() and any(path.suffix == ".tar" for path in _own_files(folder)):
        raise UserError(
            f"{folder} holds shards without a manifest that no build here left; choose another --out, or --force"
        )


def _refuse_others(folder: Path, there: BuildSettings, wanted: BuildSettings) -> None:
    """Raise `UserError`, naming the settings, where the set in `folder` was made or begun with others."""
    differences: list[str] = []
    for item in dataclasses.fields(BuildSettings):
        old, new = getattr(there, item.name), getattr(wanted, item.name)
        if old != new and not (item.name == "records_sha256" and differences):
            told = "" if item.name == "records_sha256" else f" {_told(old)} there, {_told(new)} now"
            differences.append(_OPTIONS.get(item.name, item.name) + told)
    if differences:
        raise UserError(
            f"{folder} was built with other settings: {'; '.join(differences)}. "
            "Choose another --out, or replace it with --force"
        )


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return str(value)
