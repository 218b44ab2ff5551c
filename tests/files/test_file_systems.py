"""File systems that behave otherwise than a local one: work ends as ever, and what can't be promised is said once."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import draw_photo
from untrained import save_run

import imgcap.files.durable
from imgcap.files.durable import write_whole
from imgcap.files.locks import Lock
from imgcap.shards.reader import ShardReader

KINDS = {
    "nfs": "",
    "noflock": "has no locks (Function not implemented): see to it yourself that no two processes work there at once",
    "nofsync": "can't bring it to the disk (Invalid argument): after a power cut what was written last may be missing",
}


def keep_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS does: a file that is open and is removed stays in its folder under another name."""
    unlink = os.unlink

    def silly_rename(path: Any, *, dir_fd: int | None = None) -> None:
        parent = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
        full = os.path.abspath(os.path.join(parent, os.fspath(path)))
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        if full in [os.readlink(link) for link in links if os.path.islink(link)]:
            os.rename(full, os.path.join(os.path.dirname(full), f".nfs{os.getpid():08x}"))
        else:
            unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", silly_rename)
    monkeypatch.setattr(os, "remove", silly_rename)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def no_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(imgcap.files.durable, "_TOLD", set())
    if request.param == "nfs":
        keep_what_is_open(monkeypatch)
    elif request.param == "noflock":
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setattr(os, "fsync", no_folders)
    return str(request.param)


def check_said_once(kind: str, stderr: str) -> None:
    warnings = [line for line in stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == bool(KINDS[kind]) and all(KINDS[kind] in line for line in warnings), stderr


def test_a_build_and_a_captioned_folder(kind: str, command: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(4):
        draw_photo(tmp_path / "photos" / f"{number}.jpg", seed=number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"A photo of {number} .")
    out = tmp_path / "set"
    ended = command("imgcap", "build", "folder", tmp_path / "photos", "--out", out, "--workers", 1)
    assert ended.returncode == 0, ended.stderr
    check_said_once(kind, ended.stderr)
    assert len(ShardReader(out, "train")) == 2 and not (out / ".building").exists()
    imgcap.files.durable._TOLD.clear()
    run = save_run(tmp_path / "run", ["a", "dog"], "data={image_size: 32, workers: 0}")
    options = ["--out", tmp_path / "c.jsonl", "--min-length", 1, "--device", "cpu"]  # none is empty, which is told too
    captioned = command("imgcap", "caption", run, tmp_path / "photos", *options)
    assert captioned.returncode == 0, captioned.stderr
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 4 and not (tmp_path / "c.jsonl.partial").exists()
    if kind == "noflock":
        check_said_once(kind, captioned.stderr)


def test_training_saves_its_checkpoints(
    kind: str, command: Callable[..., Any], tiny: list[str], shards: Path, tmp_path: Path
) -> None:
    ended = command("imgcap", "train", *tiny, f"run_dir={tmp_path / 'run'}", f"data.shards={shards}", "--device", "cpu")
    assert ended.returncode == 0 and (tmp_path / "run" / "checkpoints" / "latest").exists(), ended.stderr
    if kind == "nofsync":
        check_said_once(kind, ended.stderr)


def test_other_errors_of_the_disk_are_still_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(tmp_path / "file", "text")
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"):
        Lock(tmp_path / "lock").acquire()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire(wait=False) and not second.acquire(wait=False)
    first.release()
    with second:
        assert not first.acquire(wait=False)
    assert first.acquire()
    first.release()
