"""A build that is killed, or runs out of room, goes on where it was, to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgcap.errors import UserError
from imgcap.shards.builder import build
from imgcap.shards.sample import Tokeniser
from imgcap.shards.source import Source

SMALL_SHARD = 0.009

# A program of its own, so that it can be killed and so that spawned workers find its tokeniser.
PROGRAM = """
import resource, sys, time
from pathlib import Path
from imgcap.errors import exits_cleanly
from imgcap.shards.builder import build
from imgcap.shards.source import Source
from imgcap.types import Record

class SlowWords:
    name = "slow words"

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, caption):
        time.sleep(self.seconds)
        return caption.split()

@exits_cleanly
def main():
    photos, out, workers, seconds, largest_file = sys.argv[1:]
    if int(largest_file):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
    paths = sorted(Path(photos).iterdir())
    records = [Record(i, path.name, path, (f"caption {i}", "another")) for i, path in enumerate(paths)]
    source = Source("many", {"train": records[:100], "val": records[100:]}, [])
    build(source, Path(out), SlowWords(float(seconds)), shard_mb=0.05, workers=int(workers))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def program(tmp_path: Path, photo: object) -> list[str]:
    (tmp_path / "build.py").write_text(PROGRAM)
    for i in range(120):
        photo(tmp_path / "many" / f"{i:03d}.jpg", seed=i)  # type: ignore[operator]
    return [sys.executable, str(tmp_path / "build.py"), str(tmp_path / "many")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_builds_end_in_the_same_bytes(program: list[str], tmp_path: Path) -> None:
    subprocess.run([*program, str(tmp_path / "whole"), "1", "0", "0"], check=True)
    whole = contents(tmp_path / "whole")
    assert "train-00004.tar" in whole

    out = tmp_path / "killed"
    process = subprocess.Popen([*program, str(out), "2", "0.01", "0"])
    while not (out / ".building" / "train-00001.tar.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    workers = children_of(process.pid) if sys.platform == "linux" else []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 2 <= len(finished) < 8
    ends = time.monotonic() + 10
    while any(is_running(worker) for worker in workers) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(is_running(worker) for worker in workers), "workers outlive a killed build"

    subprocess.run([*program, str(out), "2", "0", "0"], check=True)  # of another speed, which is no setting
    assert contents(out) == whole
    assert (out / "train-00000.tar").stat().st_mtime_ns == finished["train-00000.tar"]


def test_no_room_is_one_line_and_keeps_what_is_finished(program: list[str], tmp_path: Path) -> None:
    out = tmp_path / "full"
    done = subprocess.run([*program, str(out), "1", "0", "30000"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no room left to write" in done.stderr
    assert [path for path in out.iterdir() if path.suffix == ".tmp"] == []


def test_a_started_build_goes_on_and_rebuilds_what_is_damaged(
    small_source: Source, words: Tokeniser, tmp_path: Path
) -> None:
    build(small_source, tmp_path / "whole", words, shard_mb=SMALL_SHARD)

    class Stops:
        name = words.name
        calls = 0

        def __call__(self, caption: str) -> list[str]:
            self.calls += 1
            if self.calls > 20:
                raise KeyboardInterrupt
            return words(caption)

    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        build(small_source, out, Stops(), shard_mb=SMALL_SHARD)
    finished = sorted(path.name for path in out.glob("*.tar"))
    assert finished[:2] == ["train-00000.tar", "train-00001.tar"]
    assert len(finished) < len(list((tmp_path / "whole").glob("*.tar")))
    assert not (out / "manifest.json").exists()
    assert list(out.glob("*.tmp")) == []

    with pytest.raises(UserError, match="--resize None there, 16 now"):
        build(small_source, out, words, resize=16, shard_mb=SMALL_SHARD)
    damaged = bytearray((out / "train-00000.tar").read_bytes())
    damaged[700] ^= 1
    (out / "train-00000.tar").write_bytes(damaged)
    for left in (
        "train-00001.tar.tmp",
        "manifest.json.31.tmp",
    ):  # by a build that was killed, of 0.1.0 or of this version
        (out / left).touch()
    untouched = (out / "train-00001.tar").stat().st_mtime_ns
    build(small_source, out, words, shard_mb=SMALL_SHARD)
    assert contents(out) == contents(tmp_path / "whole")
    assert (out / "train-00001.tar").stat().st_mtime_ns == untouched


def test_settings_may_change_while_nothing_is_finished(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    class Fails:
        name = "fails"

        def __call__(self, caption: str) -> list[str]:
            raise UserError("language 'zz' has no tokeniser")

    with pytest.raises(UserError, match="'zz'"):
        build(small_source, tmp_path / "set", Fails(), language="zz")
    manifest = build(small_source, tmp_path / "set", words)
    assert manifest.settings.language == "en"


def test_two_builds_of_one_folder_do_not_meet(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    out = tmp_path / "set"

    class BuildsToo:
        name = words.name

        def __call__(self, caption: str) -> list[str]:
            with pytest.raises(UserError, match="another build is writing"):
                build(small_source, out, words)
            return words(caption)

    build(small_source, out, BuildsToo())
    assert json.loads((out / "manifest.json").read_text())["splits"]["train"]["images"] == 12
