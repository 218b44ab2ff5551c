"""Files are whole or not there: whoever writes at once, and whatever fails."""

import os
from multiprocessing import get_context
from pathlib import Path

import pytest

from imgcap.files.durable import TEMPORARY, write_whole

WRITERS = 4


def write_often(path: Path, letter: str) -> None:
    for _ in range(50):
        write_whole(path, letter * 100_000, durable=False)


def test_of_several_processes_one_has_written_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a" * 100_000)
    processes = [get_context("fork").Process(target=write_often, args=(path, letter)) for letter in "abcd"[:WRITERS]]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        content = path.read_text()
        assert len(content) == 100_000 and set(content) in [{letter} for letter in "abcd"]
    assert [process.exitcode for process in processes] == [0] * WRITERS
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, durable: bool) -> None:
    write_whole(tmp_path / "file", "old é", durable)
    with pytest.raises(TypeError):
        write_whole(tmp_path / "file", 7, durable)  # type: ignore[arg-type]
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"data", durable)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == "old é".encode()


def test_names_that_are_temporary() -> None:
    for name in ("a.tar.12.tmp", "a.tar.tmp"):  # the second is of imgcap 0.1.0
        assert TEMPORARY.sub("", name) == "a.tar"
    assert not TEMPORARY.search("a.tmp.tar")


def test_what_fails_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        write_whole(tmp_path, "text")
    assert raised.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        write_whole(tmp_path / "nowhere/x", "text")
    assert raised.value.filename == str(tmp_path / "nowhere/x")
    assert not list(tmp_path.iterdir())
