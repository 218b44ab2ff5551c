"""Tables with something wrong in one place: the rows elsewhere keep their captions, or all is refused in a line."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import Changed, changed_bytes, fuzz

PHOTOS = 6
WORDS = ["zero", "one", "two", "three", "four", "five"]
PAIRS = [(number, f"A photo of {word}, {kind} .") for number, word in enumerate(WORDS) for kind in ("big", "small")]
TABLES = {
    "captions.csv": ["image,caption", *(f'{number}.jpg,"{text}"' for number, text in PAIRS)],
    "plain.csv": ["image,caption", *(f"{number}.jpg,{text}" for number, text in PAIRS)],
    "semicolons.csv": ["caption;image", *(f"{text};{number}.jpg" for number, text in PAIRS)],
    "captions.tsv": [f"{number}.jpg\t{text}" for number, text in PAIRS],
    "results.csv": ["image_name| comment_number| comment", *(f"{number}.jpg| 0| {text}" for number, text in PAIRS)],
    "tokens.txt": [f"{number}.jpg#{place % 2}\t{text}" for place, (number, text) in enumerate(PAIRS)],
    "captions.jsonl": [json.dumps({"image": f"{number}.jpg", "caption": text}) for number, text in PAIRS],
}


def check(outcome: tuple[Any, dict[str, list[str]]], lines: list[str], changed: Changed) -> None:
    """The rows that the change didn't touch are there, each with its picture, and no picture has another's."""
    ended, captions = outcome
    if ended.code == 2:
        return
    header, start = len(lines) - len(PAIRS), 0
    touched, untouched = 0, []
    for number, line in enumerate(lines):
        end = start + len(line.encode()) + 1
        if changed.start <= end and changed.end >= start:  # or at its border
            if number < header or number == 0:
                return  # how all others are read
            touched += 1
        elif number >= header:
            untouched.append(PAIRS[number - header])
        start = end
    for photo, text in untouched:
        assert text in captions.get(f"{photo}.jpg", []), (photo, text, captions)
    for photo, text in untouched:
        if changed.data.count(text.encode()) > 1:
            continue  # what was put there twice makes a row of another picture with this text
        others = [name for name, texts in captions.items() if name and name != f"{photo}.jpg" and text in texts]
        assert not others, (photo, text, others)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_something_wrong(name: str, photos: Path, tmp_path: Path, built: Callable[..., Any]) -> None:
    lines, path = TABLES[name], tmp_path / name
    source = ("folder", path, "--images", photos, "--val", 0, "--test", 0)

    def build(changed: Changed) -> None:
        path.write_bytes(changed.data)
        check(built(*source), lines, changed)

    path.write_text("\n".join(lines) + "\n")
    ended, captions = built(*source)
    assert ended.code == 0 and len(captions) == PHOTOS and not captions.get("")
    fuzz(name, changed_bytes(path.read_bytes()), build)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_table_of_columns_with_something_wrong(
    suffix: str, photos: Path, tmp_path: Path, built: Callable[..., Any]
) -> None:
    arrow = pytest.importorskip("pyarrow")
    path, table = tmp_path / f"captions{suffix}", {"image": [f"{number}.jpg" for number, _ in PAIRS]}
    rows = arrow.table(table | {"caption": [text for _, text in PAIRS]})
    if suffix == ".parquet":
        importlib.import_module("pyarrow.parquet").write_table(rows, path)
    else:
        with arrow.ipc.new_file(str(path), rows.schema) as file:
            file.write_table(rows)

    def build(changed: Changed) -> None:
        path.write_bytes(changed.data)
        ended, captions = built("folder", path, "--images", photos, "--val", 0, "--test", 0)
        assert ended.code == 2 or captions

    fuzz(f"table {suffix}", changed_bytes(path.read_bytes()), build)
