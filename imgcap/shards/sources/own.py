"""A folder of one's own: captioned pictures in whichever layout is recognised, and what was recognised in a line."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath

from imgcap.errors import UserError
from imgcap.files.text import lines_of, read_text
from imgcap.shards.source import Skipped, Source, image_id_of
from imgcap.shards.sources.coco import read_annotations
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.image_folder import ImageFiles, copies, in_order, refuse_wrong_folder
from imgcap.shards.sources.layouts import SIDECARS, Layout, recognise
from imgcap.shards.sources.splits import STANDARD_NAMES, Shares, places_in, read_splits
from imgcap.shards.sources.table import looks_like_image, read_table
from imgcap.shards.sources.text_file import captions_in
from imgcap.types import Record, Stored

_SHARES = Shares(0.1, 0.1)  # where nothing is said; a folder of one's own is small


@dataclass
class _Image:
    """A picture with all that the tables say of it."""

    path: Path
    inside: Stored | None = None
    captions: list[str] = field(default_factory=list)
    split: str = ""
    image_id: int | None = None


@dataclass
class _Gathered:
    """The pictures of all tables by their names from the folder, and what was left out or not used."""

    files: ImageFiles
    images: dict[str, _Image] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    name_splits: list[str] = field(default_factory=list)  # unused columns that do
    names: list[str] = field(default_factory=list)  # as written
    split_column: str = ""

    def add(
        self, name: str, path: Path, inside: Stored | None, captions: Iterable[str], split: str, image_id: int | None
    ) -> None:
        """Take a picture, or more captions of one; a picture of two splits is left out of the second."""
        image = self.images.setdefault(name, _Image(path, inside, split=split, image_id=image_id))
        if image.split != split:
            self.skipped.append(Skipped(name, f"picture of {image.split or 'no split'} that is in {split} too"))
        else:
            image.captions += captions


def read(
    path: Path,
    images: Path | None,
    layout: str | None,
    columns: Columns,
    lists: Path | None,
    seed: int,
    shares: Shares,
) -> Source:
    """Read a folder, or a table of which the pictures lie in `images` or beside it.

    Splits come from `lists`, a column, the names of the tables or of folders, in this order; else, or where all is
    train, a seed cuts. `UserError` for a layout that isn't recognised and where nothing has captions.
    """
    if not path.exists():
        raise UserError(f"there is no folder or table {path}; check the name")
    root = images or (path if path.is_dir() else path.parent)
    files = ImageFiles(root)
    found = recognise(path, columns, layout, lambda cell: looks_like_image(cell) or files.find(cell) is not None)
    gathered = _Gathered(files)
    if found.name == "sidecar":
        _take_sidecars(gathered, found)
    elif found.name == "coco":
        _take_coco(gathered, found)
    else:
        _take_tables(gathered, found, columns)
    gathered.images = _from_their_folder(gathered.images)
    captioned = {name: image for name, image in gathered.images.items() if image.captions}
    if not captioned:
        refuse_wrong_folder(gathered.names, gathered.images, files.folder)
        raise UserError(f"{path} was recognised as {found.told} and holds no captions; check what is in it")
    skipped = gathered.skipped + [
        Skipped(name, "image without captions") for name, image in gathered.images.items() if not image.captions
    ]
    everywhere = path.is_dir() or images is not None  # beside a table may lie pictures that it has nothing to do with
    skipped += files.without_captions((image.path for image in gathered.images.values()), everywhere)
    rule, cut = _place(captioned, gathered, found, lists, seed, shares)
    splits: dict[str, list[Record]] = {}
    ids = [image.image_id for image in captioned.values()]
    own_ids = None not in ids and len(set(ids)) == len(ids)
    for name, image in captioned.items():
        if not image.split:
            skipped.append(Skipped(name, "in no split"))
            continue
        image_id = image.image_id if own_ids and image.image_id is not None else image_id_of(name)
        record = Record(image_id, name, image.path, tuple(image.captions), image.inside)
        splits.setdefault(image.split, []).append(record)
    if not splits:
        raise UserError(f"{path} puts no picture that has captions into a split; check the splits, or leave them out")
    notes = _notes(found, gathered, captioned, cut)
    name = path.resolve().stem if path.is_file() else path.resolve().name
    origin = ", ".join(file.name for file in found.files[:3]) if found.name != "sidecar" else "sidecar files"
    return Source(name, in_order(splits), skipped, f"{found.name}: {origin}", rule, notes)


def _notes(found: Layout, gathered: _Gathered, captioned: dict[str, _Image], cut: str) -> tuple[str, ...]:
    """The lines that say what was recognised, and what was not used."""
    texts = sum(len(image.captions) for image in captioned.values())
    columns = f" with columns {', '.join(gathered.columns)}" if gathered.columns else ""
    told = [f"recognised: {found.told}{columns}", f"{len(captioned):,} images, {texts:,} captions"]
    for column in gathered.unused:
        names_splits = f" and names splits: --split-column {shlex.quote(column)} takes them"
        told.append(f"column {column!r} is not used{names_splits if column in gathered.name_splits else ''}")
    if gathered.files.by_end:
        told.append(f"{gathered.files.by_end:,} pictures found by the last part of their name alone")
    if gathered.files.left_out:
        told.append(f"left out, of a sort that isn't read: {gathered.files.left_out}")
    return ("; ".join(told), *([cut] if cut else []))


def _take_sidecars(gathered: _Gathered, found: Layout) -> None:
    """Take each picture with the lines of the first of its sidecar files."""
    beside = {file: file.with_suffix("") for file in found.files}
    by_stem: dict[Path, list[Path]] = {}
    for file, stem in sorted(beside.items(), key=lambda item: SIDECARS.index(item[0].suffix.lower())):
        by_stem.setdefault(stem, []).append(file)
    for name in gathered.files.names:
        path = gathered.files.folder / name
        for number, file in enumerate(by_stem.get(path.with_suffix(""), [])):
            if number:
                gathered.skipped.append(Skipped(gathered.files.relative(file), "second file of captions of a picture"))
                continue
            beside_it, captions = gathered.files.relative(file), list[str]()
            lines = [(number, line) for number, line in enumerate(lines_of(read_text(file)), 1) if line.strip()]
            for line_number, line in lines or [(1, "")]:
                captions += captions_in([line], beside_it, gathered.skipped, f"line {line_number}")
            gathered.add(name, path, None, captions, "", None)
    lonely = {name for name in gathered.files.all_names if PurePosixPath(name).suffix.lower() in SIDECARS}
    lonely -= {gathered.files.relative(file) for file in found.files}
    gathered.skipped += [Skipped(name, "captions without an image") for name in sorted(lonely)]


def _take_coco(gathered: _Gathered, found: Layout) -> None:
    files, parts = gathered.files, [read_annotations(file) for file in found.files]
    named = [(list(part.names.values()), _near(files, file)) for file, part in zip(found.files, parts, strict=True)]
    for file, split, part, paths in zip(found.files, found.split_of_each, parts, _find(gathered, named), strict=True):
        gathered.skipped += part.skipped
        gathered.split_column = "split" if part.splits else ""
        for image_id, name in part.names.items():
            if name in paths:
                own = part.splits.get(image_id, "") if part.splits else split
                gathered.add(files.relative(paths[name]), paths[name], None, part.captions[image_id], own, image_id)
            else:
                gathered.skipped.append(Skipped(f"{name} ({file.name}, id {image_id})", "captions without an image"))


def _take_tables(gathered: _Gathered, found: Layout, columns: Columns) -> None:
    files = gathered.files
    tables = [
        read_table(file, columns, lambda cell: looks_like_image(cell) or files.find(cell) is not None)
        for file in found.files
    ]
    named = [
        ([name for name in table.captions if name not in table.stored], _near(files, file))
        for file, table in zip(found.files, tables, strict=True)
    ]
    for file, split, table, paths in zip(found.files, found.split_of_each, tables, _find(gathered, named), strict=True):
        gathered.columns += [column for column in table.chosen.used if column not in gathered.columns]
        gathered.unused += [column for column in table.chosen.unused if column not in gathered.unused]
        gathered.name_splits += table.name_splits
        gathered.skipped += table.skipped
        if table.has_splits:
            gathered.split_column = table.chosen.used[-1]
        for name, captions in table.captions.items():
            own = table.split_of.get(name, "") if table.has_splits else split
            inside = table.stored.get(name)
            if inside:
                gathered.add(_name_of_stored(gathered, name, file, inside), file, inside, captions, own, None)
            elif name in paths:
                gathered.add(files.relative(paths[name]), paths[name], None, captions, own, None)
            else:
                gathered.skipped.append(Skipped(f"{name} ({table.places[name]})", "captions without an image"))


def _find(gathered: _Gathered, named: list[tuple[list[str], str]]) -> list[dict[str, Path]]:
    """Find the pictures of each table's names, from the subfolder that it lies in.

    A picture that a table names as it lies there is found by its last part for no other table: train/7.jpg, where it
    is missing, is not test/7.jpg.
    """
    files, found = gathered.files, list[dict[str, Path]]()
    there = {path for names, near in named for name in names if (path := files.find(name, near))}
    for names, near in named:
        paths = files.find_all(names, near, there)
        gathered.names += names
        there |= set(paths.values())
        found.append(paths)
    return found


def _from_their_folder(images: dict[str, _Image]) -> dict[str, _Image]:
    """Name pictures that lie elsewhere from the folder that they have in common, so that it may lie anywhere."""
    elsewhere = [name for name in images if os.path.isabs(name)]
    if not elsewhere:
        return images
    common = os.path.join(os.path.commonpath([os.path.dirname(name) for name in elsewhere]), "")
    named = {name.removeprefix(common): image for name, image in images.items()}
    return named if len(named) == len(images) else images


def _near(files: ImageFiles, table: Path) -> str:
    """The subfolder that a table lies in, from which its names may go; empty where it lies elsewhere."""
    return table.parent.relative_to(files.folder).as_posix() if table.parent.is_relative_to(files.folder) else ""


def _name_of_stored(gathered: _Gathered, name: str, table: Path, inside: Stored) -> str:
    """The name of a picture in a table: with the table's before it where another table has another picture of it."""

    def is_free(tried: str) -> bool:
        before = gathered.images.get(tried)
        return before is None or (before.inside is not None and before.inside.read_bytes() == inside.read_bytes())

    whole = PurePosixPath(gathered.files.relative(table)).with_suffix("")
    numbered = (f"{whole}-{number}/{name}" for number in count(2))
    return next(filter(is_free, chain((name, f"{table.stem}/{name}", f"{whole}/{name}"), numbered)))


def _place(
    captioned: dict[str, _Image], gathered: _Gathered, found: Layout, lists: Path | None, seed: int, shares: Shares
) -> tuple[str, str]:
    """Give each image its split; return the rule, and a line where the data's own splits are not used."""
    rule = "names of the tables and their folders"
    if gathered.split_column:
        rule = f"column {gathered.split_column}" if gathered.columns else "`split` of the images"
    if lists is not None:
        split_of = places_in(read_splits(lists), captioned)
        gathered.unused += [gathered.split_column] if gathered.split_column else []
        for name, image in captioned.items():
            image.split = split_of.get(name, "")
        return lists.name, ""
    if not gathered.split_column and not found.splits:
        folders = {name: _folder_split(name) for name in captioned}
        for name, split in folders.items() if all(folders.values()) else ():
            captioned[name].split = split
        rule = "names of the folders"
    splits = {image.split for image in captioned.values()}
    if splits - {"", "train"}:
        return rule, ""
    shares = Shares(
        *(
            default if share is None else share
            for share, default in zip((shares.val, shares.test), (_SHARES.val, _SHARES.test), strict=True)
        )
    )
    cut_up = [name for name, image in captioned.items() if image.split] or list(captioned)  # an empty cell is no split
    split_of = shares.cut(cut_up, seed, copies({n: captioned[n].path for n in cut_up if captioned[n].inside is None}))
    for name, split in split_of.items():
        captioned[name].split = split
    cut = "all of it is called train by the " + rule + ", so that a seed cuts it" if "train" in splits else ""
    if shares.val and "val" not in split_of.values():
        raise UserError(
            f"{len(cut_up)} captioned images are too few to hold any out for val; give 3 or more, or --val 0 --test 0"
        )
    return shares.rule(seed), cut


def _folder_split(name: str) -> str:
    return next(
        (STANDARD_NAMES[part] for part in map(str.lower, PurePosixPath(name).parts[:-1]) if part in STANDARD_NAMES), ""
    )
