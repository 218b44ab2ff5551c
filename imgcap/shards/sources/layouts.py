"""Recognising how a folder of one's own holds its captions; docs/own-data.md shows each layout."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.text import read_json
from imgcap.pictures.files import files_beneath
from imgcap.pictures.formats import SUFFIXES
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.delimited import IsImage
from imgcap.shards.sources.splits import split_in
from imgcap.shards.sources.table import COLUMNAR, DELIMITED, JSON_LINES, choose_columns

SIDECARS = (".txt", ".caption")
LAYOUTS = {
    "sidecar": "a .txt or .caption beside each picture",
    "imagefolder": "metadata.jsonl, .csv or .parquet with file_name",
    "table": "a table .csv, .tsv, .jsonl or .json of image and caption",
    "datasets": "Parquet or Arrow files of Hugging Face datasets",
    "coco": "COCO JSON with images and annotations",
}
SEE = "docs/own-data.md shows each"


@dataclass(frozen=True)
class Layout:
    """A layout that a folder has: its name, and the files that hold the captions, each with the split it names."""

    name: str
    files: tuple[Path, ...]
    splits: tuple[str, ...] = ()  # of each file; none where not every file's name tells one

    @property
    def split_of_each(self) -> tuple[str, ...]:
        """The split that each file's name tells, or that none does."""
        return self.splits or ("",) * len(self.files)

    @property
    def told(self) -> str:
        """The layout in a few words, with the first of its files."""
        kinds = sorted({file.suffix for file in self.files}) if self.name == "sidecar" else []
        if kinds:
            return f"{len(self.files):,} {' and '.join(kinds)} files beside pictures"
        names = [file.name for file in self.files]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = {"imagefolder": "an ImageFolder", "table": "a table", "coco": "COCO JSON"}
        return f"{what.get(self.name, 'a data set of Hugging Face')} {names[0]}{more}"


def recognise(path: Path, columns: Columns, forced: str | None, is_image: IsImage) -> Layout:
    """Recognise the layout of a folder or a table file; `forced` names the one that it is to be.

    `UserError`, which says what layouts there are, where none fits or several do.
    """
    if path.is_file():
        return _of_file(path, forced)
    files = sorted(files_beneath(path))
    finders: dict[str, Callable[[], Sequence[Path]]] = {
        "sidecar": lambda: _sidecars(files),
        "imagefolder": lambda: [file for file in files if _is_metadata(file)],
        "table": lambda: _tables(path, files, columns, is_image),
        "datasets": lambda: _datasets(files),
        "coco": lambda: [file for file in _json_files(path, files) if _is_coco(file)],
    }
    wanted = [forced] if forced else list(finders)
    fitting = [_layout(name, found, path) for name in wanted if (found := finders[name]())]
    if len(fitting) > 1:
        told = " and of ".join(f"{layout.name} ({layout.told})" for layout in fitting)
        raise UserError(
            f"{path} has the layouts of {told}; say which it is with --layout {fitting[0].name} or the like"
        )
    if fitting:
        return fitting[0]
    if not forced or forced == "table":
        for file in files:  # a table whose columns aren't known says what it lacks
            if file.parent == path and file.suffix.lower() in (*DELIMITED[:3], *JSON_LINES):
                choose_columns(file, columns, is_image)
    raise _no_layout(path, files, forced)


def _no_layout(path: Path, files: list[Path], forced: str | None) -> UserError:
    known = "; ".join(f"{name}: {meaning}" for name, meaning in LAYOUTS.items())
    if forced:
        return UserError(f"{path} has not the layout {forced} ({LAYOUTS[forced]}); layouts are {known} ({SEE})")
    pictures = sum(file.suffix.lower() in SUFFIXES for file in files)
    held = f"{pictures} pictures" if pictures else f"{len(files)} files, no pictures," if files else "nothing"
    return UserError(f"{path} holds {held} and no captions in a layout that is known; layouts are {known} ({SEE})")


def _of_file(path: Path, forced: str | None) -> Layout:
    suffix = path.suffix.lower()
    if forced == "sidecar" or suffix in SUFFIXES:
        raise UserError(f"{path} is a file; give the folder of the pictures, or a table of captions ({SEE})")
    if suffix in COLUMNAR:
        name = "datasets"
    elif suffix == ".json" and _is_coco(path):
        name = "coco"
    else:
        name = "imagefolder" if _is_metadata(path) else "table"
    return Layout(forced or name, (path,), (split_in(path.name),) if split_in(path.name) else ())


def _layout(name: str, files: Sequence[Path], path: Path) -> Layout:
    if name == "sidecar":
        return Layout(name, tuple(files))
    splits = [split_in(file.name) or next(filter(None, map(split_in, _folders(file, path))), "") for file in files]
    if name == "imagefolder":
        folders = [file.parent for file in files]
        twice = next((folder for folder in folders if folders.count(folder) > 1), None)
        if twice:
            raise UserError(f"{twice} holds several metadata files; leave one of them, or give the one to read")
    elif name in ("table", "coco") and len(files) > 1 and (not all(splits) or len(set(splits)) < len(splits)):
        told = ", ".join(file.name for file in files)
        raise UserError(f"{path} holds several files of captions: {told}; give the one to read in place of the folder")
    return Layout(name, tuple(files), tuple(splits) if all(splits) else ())


def _folders(file: Path, root: Path) -> list[str]:
    return list(file.relative_to(root).parts[:-1])


def _sidecars(files: list[Path]) -> list[Path]:
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    return [file for file in files if file.suffix.lower() in SIDECARS and file.with_suffix("") in pictures]


def _is_metadata(file: Path) -> bool:
    return file.stem == "metadata" and file.suffix in (".jsonl", ".csv", ".parquet")


def _tables(root: Path, files: list[Path], columns: Columns, is_image: IsImage) -> list[Path]:
    beside = set(_sidecars(files))
    found = []
    for file in files:
        kind = file.suffix.lower()
        if (
            file.parent != root
            or file in beside
            or _is_metadata(file)
            or kind not in (*DELIMITED, *JSON_LINES, ".json")
        ):
            continue
        if kind == ".json" and _is_coco(file):
            continue
        try:
            choose_columns(file, columns, is_image)
        except UserError:
            continue
        found.append(file)
    return found


def _datasets(files: list[Path]) -> list[Path]:
    tables = [file for file in files if file.suffix.lower() in COLUMNAR and not _is_metadata(file)]
    listed = {file.parent: _listed(file) for file in files if file.name == "state.json"}
    return [file for file in tables if file.name in listed.get(file.parent, (file.name,))]


def _listed(state: Path) -> list[str]:
    """The Arrow files that `save_to_disk` wrote into a folder, of which it may hold others."""
    try:
        return [str(file["filename"]) for file in json.loads(state.read_bytes())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _json_files(root: Path, files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".json" and file.parent in (root, root / "annotations")]


def _is_coco(file: Path) -> bool:
    content: Any = read_json(file)
    return isinstance(content, dict) and isinstance(content.get("images"), list)
