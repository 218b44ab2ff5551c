"""Finding the pictures of folders, and telling which are left out."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from imgcap.errors import UserError
from imgcap.pictures.formats import SUFFIXES, is_other_picture


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """List files as given, and the pictures in folders (by suffix, in subfolders too), sorted; each once.

    Pictures of a sort that isn't read are counted on stderr. `UserError` for a path that isn't there and a folder
    without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = list(files_beneath(path))
            inside = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"there is no picture in {path}; name one that holds {', '.join(SUFFIXES)} files")
            if told := left_out(files):
                print(f"left out of {path}: {told}", file=sys.stderr, flush=True)
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"there is no picture or folder {path}; check the name")
    return list(dict.fromkeys(found))


def files_beneath(folder: Path) -> Iterator[Path]:
    """Find the files of a folder and of its subfolders, through links too (each folder once); hidden ones left out.

    So are pipes and sockets, of which a reader would wait for ever. A link that leads nowhere is a file.
    """
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = (Path(root, name) for name in files if not name.startswith("."))
        yield from (file for file in inside if file.is_file() or file.is_symlink())


def left_out(files: Iterable[Path]) -> str:
    """Tell which files look like pictures and are of no sort that is read: `3 × .svg, 1 × .cr2`; empty if none."""
    others = Counter(suffix for file in files if is_other_picture(suffix := file.suffix.lower()))
    return ", ".join(f"{count} × {suffix}" for suffix, count in others.most_common())
