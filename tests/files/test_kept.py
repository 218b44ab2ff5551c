"""What scoring keeps on disk: found again, made again when damaged, bounded, and never needed."""

import os
from pathlib import Path

import pytest

from imgcap.files import kept as cache
from imgcap.files.kept import cached, content_hash


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMGCAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scoring"


def test_made_once() -> None:
    assert cached("name", lambda: b"data") == b"data"
    assert cached("name", lambda: pytest.fail("made twice")) == b"data"


def test_a_damaged_file_is_made_again(folder: Path) -> None:
    cached("name", lambda: b"data")
    whole = (folder / "name").read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"x", b"", b"short"):
        (folder / "name").write_bytes(damaged)
        assert cached("name", lambda: b"data") == b"data"
        assert (folder / "name").read_bytes() == whole


def test_the_files_read_longest_ago_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEPT", 3)
    for age, name in enumerate("abc"):
        cached(name, name.encode)
        os.utime(folder / name, (age, age))
    cached("a", lambda: pytest.fail("it is there"))
    cached("d", lambda: b"d")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c", "d"]


def test_without_a_place_to_write_it_is_made_each_time(folder: Path) -> None:
    folder.parent.write_bytes(b"a file where the folder would be")
    assert cached("name", lambda: b"one") == b"one"
    assert cached("name", lambda: b"two") == b"two"


def test_the_hash_sees_how_parts_are_divided() -> None:
    assert content_hash(b"ab", b"c") != content_hash(b"a", b"bc") != content_hash(b"abc")
