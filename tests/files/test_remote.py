"""Shard sets behind an address: whatever the server does, never a wrong byte, and an end that names it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import HostileServer

from imgcap.errors import UserError
from imgcap.files.cache import Cache
from imgcap.files.durable import sha256_of
from imgcap.files.fetch import Unreachable, fetch, read_address
from imgcap.files.locks import Lock
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(shards):
    server = HostileServer(shards)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    module = sys.modules[fetch.__module__]
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "SILENCE", 0.5)


@pytest.fixture
def tar(shards):
    return shards / "train-00000.tar"


def asked(server, name="train-00000.tar"):
    return [start for path, start in server.asked if path.endswith(name)]


@pytest.mark.parametrize(
    "faults",
    [[], ["503", "503"], ["cut"], ["wrong"], ["cut", "whole"], ["slow"], ["stop"], ["wrong", "cut", "503", "stop"]],
    ids="-".join,
)
def test_what_arrives_is_what_is_there(server, tar, tmp_path, faults):
    server.faults = list(faults)
    place = Place(server.url, tmp_path / "cache")
    path = place.path(tar.name, tar.stat().st_size, sha256_of(tar))
    assert path.read_bytes() == tar.read_bytes()
    starts = asked(server)
    assert len(starts) == 1 + sum(fault in ("503", "cut", "wrong", "stop") for fault in faults)
    if faults[:1] == ["cut"]:
        assert starts[1] > 1000  # goes on where it broke off
    place.path(tar.name, tar.stat().st_size, sha256_of(tar))
    assert asked(server) == starts


@pytest.mark.parametrize("fault, told", [("503", "answered 503"), ("wrong", "sha256"), ("gone", "is not there")])
def test_a_server_that_never_mends_is_named(server, tar, tmp_path, fault, told):
    server.always = fault
    place = Place(server.url, tmp_path / "cache")
    with pytest.raises(Unreachable, match=rf"{server.url}/{tar.name}.*{told}"):
        place.path(tar.name, tar.stat().st_size, sha256_of(tar))
    assert not list((tmp_path / "cache").glob("*.whole"))


def test_a_server_that_cuts_each_answer_is_done_piece_by_piece(server, tar, tmp_path):
    server.always = "cut"
    advanced = []
    with pytest.raises(Unreachable):  # each try brings half of the rest, until a try brings nothing
        fetch(f"{server.url}/{tar.name}", tmp_path / "file", tar.stat().st_size, advance=advanced.append)
    assert len(asked(server)) > 6 and sum(advanced) == (tmp_path / "file").stat().st_size
    server.always = None
    fetch(f"{server.url}/{tar.name}", tmp_path / "file", tar.stat().st_size, sha256_of(tar))


def test_a_remote_set_reads_like_the_folder(server, shards, tmp_path):
    here, there = ShardReader(shards, "train"), ShardReader(Place(server.url, tmp_path), "train")
    assert there.is_remote and not here.is_remote and there.manifest_sha256 == here.manifest_sha256
    assert [there.read(i) for i in range(len(there))] == [here.read(i) for i in range(len(here))]


def test_any_file_system_of_fsspec(shards, tmp_path):
    there = ShardReader(Place(f"file://{shards}", tmp_path), "train")
    assert there.read(3) == ShardReader(shards, "train").read(3)
    with pytest.raises(UserError, match=r"nosuch://.*pip"):
        read_address("nosuch://bucket/manifest.json")


def test_a_set_that_is_not_there_is_named(server):
    with pytest.raises(UserError, match=r"/elsewhere has no manifest\.json.*check the address"):
        ShardReader(f"{server.url}/elsewhere", "train")


def test_the_cache_keeps_what_was_used_last(tmp_path):
    source, cache = tmp_path / "source", Cache(tmp_path / "cache", 2500)
    source.mkdir()
    sizes = {}
    for name in "abc":
        (source / name).write_bytes(name.encode() * 1000)
        sizes[name] = (f"file://{source / name}", 1000, sha256_of(source / name))
    first = cache.get(*sizes["a"])
    with first.open("rb") as opened:
        second = cache.get(*sizes["b"])
        os.utime(first, (1, 1))
        third = cache.get(*sizes["c"])
        assert not first.exists() and second.exists() and third.exists()
        assert opened.read() == b"a" * 1000  # whoever has it open goes on reading
    with pytest.raises(Unreachable, match=r"raise data\.cache_gb"):
        Cache(tmp_path / "small", 500).get(*sizes["a"])


def test_a_cache_that_cannot_be_and_a_file_that_is_not_there_are_no_damaged_samples(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match=r"can't be kept in .*data\.cache"):
        Cache(tmp_path / "file", 2500).get(f"file://{tmp_path}/file", 10, "0" * 64)
    with pytest.raises(Unreachable, match="is not there"):
        Cache(tmp_path / "cache", 2500).get(f"file://{tmp_path}/gone", 10, "0" * 64)


def test_what_others_are_fetching_has_its_room(tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 1000)
    cache = Cache(tmp_path / "cache", 2500)
    kept = cache.get(f"file://{tmp_path}/a", 1000, sha256_of(tmp_path / "a"))
    (tmp_path / "b").write_bytes(b"b" * 1000)
    left = tmp_path / "cache" / f"{'1' * 64}-1000.part"
    left.write_bytes(b"x" * 400)
    with Lock(tmp_path / "cache" / ("1" * 64 + ".lock")):
        second = cache.get(f"file://{tmp_path}/b", 1000, sha256_of(tmp_path / "b"))
    assert second.exists() and left.exists() and not kept.exists()
    os.utime(left, (1, 1))
    (tmp_path / "c").write_bytes(b"c" * 1200)
    cache.get(f"file://{tmp_path}/c", 1200, sha256_of(tmp_path / "c"))
    assert second.exists() and not left.exists()  # nobody fetches it any more


FETCHER = """
import sys, time
from pathlib import Path
from imgcap.shards.place import Place
url, cache, name, size, sha256 = sys.argv[1:]
print("ready", flush=True)
print(Place(url, cache).path(name, int(size), sha256))
"""


@pytest.fixture
def fetcher(server, tar, tmp_path):
    command = [sys.executable, "-c", FETCHER, server.url, tmp_path / "cache", tar.name, tar.stat().st_size]
    command = [*map(str, command), sha256_of(tar)]
    return lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_processes_never_fetch_one_shard_twice(server, fetcher):
    server.always = "slow"
    processes = [fetcher() for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert len(asked(server)) == 1


def test_a_kill_while_fetching_leaves_nothing_that_is_trusted(server, fetcher, tar, tmp_path):
    server.always, server.silence = "stop", 60
    process = fetcher()
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size for path in (tmp_path / "cache").glob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "cache").glob("*.whole"))
    (left,) = (tmp_path / "cache").glob("*.part")
    damaged = bytearray(left.read_bytes())
    damaged[-1] ^= 1
    left.write_bytes(damaged)
    server.always = None
    path = Place(server.url, tmp_path / "cache").path(tar.name, tar.stat().st_size, sha256_of(tar))
    assert path.read_bytes() == tar.read_bytes()
