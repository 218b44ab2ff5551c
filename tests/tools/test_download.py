"""Fetching a data set: goes on after a stop, takes other places, unpacks nothing outside, counts what is there."""

import bz2
import io
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from hostile import HostileServer

from imgcap.files.datasets import SOURCES, read_datasets
from imgcap.files.locks import alone_in

PICTURES, WORDS = 40, b"a caption\n" * 2000


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return path


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "publisher"
    folder.mkdir()
    zipped(folder / "photos.zip", {f"Photos/{n}.jpg": os.urandom(4000) for n in range(PICTURES)})
    zipped(folder / "text.zip", {"captions.txt": WORDS, "__MACOSX/._captions.txt": b"x"})
    server = HostileServer(folder)
    yield server
    server.close()


@pytest.fixture
def sources(server, tmp_path):
    size = (server.folder / "photos.zip").stat().st_size
    content = {
        "tiny": {
            "about": "a few photos",
            "files": [
                {"file": "photos.zip", "bytes": size, "from": [f"{server.url}/photos.zip"]},
                {"file": "text.zip", "from": [f"{server.url}/text.zip"]},
            ],
            "holds": [{"path": "Photos/*.jpg", "count": PICTURES}, {"path": "captions.txt"}],
            "next": "build {out}",
        },
        "asked": {
            "about": "on request",
            "files": [{"file": "photos.zip", "by_hand": "write to the author"}],
            "holds": [{"path": "Photos/*.jpg", "count": PICTURES}],
            "next": "build {out}",
        },
    }
    path = tmp_path / "datasets.yaml"
    path.write_text(yaml.safe_dump(content))
    return content, path


@pytest.fixture
def download(command, sources, tmp_path):
    def run(*arguments, dataset="tiny"):
        out = ["--out", tmp_path / "raw", "--sources", sources[1]]
        return command("tools/download.py", dataset, *out, *arguments)

    return run


def names(server):
    return [path for path, _ in server.asked]


def test_a_data_set_is_fetched_unpacked_and_counted_once(download, server, tmp_path):
    ended = download()
    assert ended.returncode == 0, ended.stderr
    assert f"{PICTURES} × " in ended.stdout and f"next: build {tmp_path / 'raw'}" in ended.stdout
    assert (tmp_path / "raw/captions.txt").read_bytes() == WORDS
    assert not list((tmp_path / "raw").glob("*.zip")) and len(server.asked) == 2
    assert download().returncode == 0 and len(server.asked) == 2
    assert download("--verify-only").returncode == 0
    (tmp_path / "raw/Photos/3.jpg").unlink()
    lacking = download("--verify-only")
    assert lacking.returncode == 2 and f"{PICTURES - 1} of {PICTURES} files" in lacking.stderr
    assert download("--force", "--keep").returncode == 0 and len(server.asked) == 4
    assert sorted(path.name for path in (tmp_path / "raw").glob("*.zip")) == ["photos.zip", "text.zip"]


def test_what_was_stopped_goes_on_where_it_stopped(download, server, tmp_path):
    (tmp_path / "raw").mkdir()
    whole = (server.folder / "photos.zip").read_bytes()
    (tmp_path / "raw/photos.zip.part").write_bytes(whole[:70_000])
    assert download().returncode == 0
    assert ("/photos.zip", 70_000) in server.asked


def test_a_local_file_or_another_address_stands_in(download, server, tmp_path):
    server.always = "gone"
    refused = download()
    assert refused.returncode == 2
    assert f"{server.url}/photos.zip is not there" in refused.stderr and "--source photos.zip=PLACE" in refused.stderr
    server.always = None
    asked = len(server.asked)
    ended = download(
        "--source", f"photos.zip={server.folder / 'photos.zip'}", "--source", f"text.zip={server.url}/text.zip"
    )
    assert ended.returncode == 0, ended.stderr
    assert names(server)[asked:] == ["/text.zip"] and (server.folder / "photos.zip").exists()


def test_what_needs_a_login_says_what_to_do(download, server, tmp_path):
    refused = download(dataset="asked")
    assert refused.returncode == 2 and "write to the author" in refused.stderr
    (tmp_path / "raw").mkdir(exist_ok=True)
    (tmp_path / "raw/photos.zip").write_bytes((server.folder / "photos.zip").read_bytes())
    assert download("--keep", dataset="asked").returncode == 0 and not server.asked
    assert download("--keep", "--force", dataset="asked").returncode == 0  # what can't be had again is never removed
    assert (tmp_path / "raw/photos.zip").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/imgcap-outside.txt", "a/../../outside.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_nothing_is_unpacked_outside_the_folder(download, sources, tmp_path, name, kind):
    content, path = sources
    evil = tmp_path / f"evil.{kind}"
    if kind == "zip":
        zipped(evil, {name: b"evil"})
    else:
        with tarfile.open(evil, "w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    content["tiny"]["files"] = [{"file": evil.name, "from": ["http://127.0.0.1:1/"]}]
    path.write_text(yaml.safe_dump(content))
    refused = download("--source", f"{evil.name}={evil}")
    assert refused.returncode == 2 and "a path out of the folder" in refused.stderr
    assert not (tmp_path / "outside.txt").exists() and not Path("/tmp/imgcap-outside.txt").exists()


def test_a_damaged_archive_and_a_full_disk_are_named(download, server, sources, tmp_path, small_disk, command):
    data = bytearray((server.folder / "text.zip").read_bytes())
    data[200] ^= 1
    (tmp_path / "broken.zip").write_bytes(data)
    refused = download("--source", f"text.zip={tmp_path / 'broken.zip'}")
    assert refused.returncode == 2 and "broken.zip is damaged" in refused.stderr
    disk = small_disk("200k")
    refused = command("tools/download.py", "tiny", "--out", disk, "--sources", sources[1])
    assert refused.returncode == 2 and "GB free" in refused.stderr and not list(disk.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--source", "nothing.zip=/x"], "--source nothing.zip: the files are photos.zip, text.zip"),
        (["--source", "photos.zip"], "write FILE=PLACE"),
        (["--source", "photos.zip=/nowhere/x.zip"], "there is no /nowhere/x.zip"),
    ],
)
def test_mistakes_are_named(download, arguments, message):
    refused = download(*arguments)
    assert refused.returncode == 2 and message in refused.stderr


def test_the_list_of_the_house_is_whole(command, tmp_path):
    datasets = read_datasets(SOURCES)
    assert set(datasets) == {"flickr8k", "flickr30k", "coco2014", "coco2017", "karpathy"}
    for dataset in datasets.values():
        assert all(entry.places or entry.by_hand for entry in dataset.files) and "{out}" in dataset.next
    (tmp_path / "broken.yaml").write_text("tiny: {files: 3}")
    refused = command("tools/download.py", "tiny", "--out", tmp_path, "--sources", tmp_path / "broken.yaml")
    assert refused.returncode == 2 and "is no list of data sets" in refused.stderr
    refused = command("tools/download.py", "mnist", "--out", tmp_path)
    assert refused.returncode == 2 and "choose one of flickr8k" in refused.stderr


def test_an_archive_that_others_have_packed_is_taken_as_it_is(command, tmp_path):
    """Kaggle's of Flickr30k, which the list advises: a zip in place of a tar.gz, its photos two folders deep."""
    listed = tmp_path / "datasets.yaml"
    listed.write_text(SOURCES.read_text(encoding="utf-8").replace("count: 31783", "count: 5"), encoding="utf-8")
    photos = {f"flickr30k_images/flickr30k_images/{number}.jpg": b"x" for number in range(5)}
    kaggle = zipped(tmp_path / "archive.zip", photos | {"flickr30k_images/results.csv": WORDS})
    words, raw = zipped(tmp_path / "words.zip", {"dataset_flickr30k.json": b"{}"}), tmp_path / "raw"
    given = ["--source", f"flickr30k-images.tar.gz={kaggle}", "--source", f"caption_datasets.zip={words}"]
    ended = command("tools/download.py", "flickr30k", "--out", raw, "--sources", listed, *given)
    assert ended.returncode == 0, ended.stderr
    nested = raw / "flickr30k_images" / "flickr30k_images"
    assert f"5 × {nested}/*.jpg" in ended.stdout
    assert f"next: imgcap build karpathy --images {nested} --captions {raw}/dataset_flickr30k.json" in ended.stdout
    (nested / "3.jpg").unlink()
    lacking = command("tools/download.py", "flickr30k", "--out", raw, "--sources", listed, "--verify-only")
    assert f"{nested}/*.jpg: 4 of 5 files" in lacking.mistake


def test_a_page_in_place_of_an_archive_is_said_to_be_none(download, tmp_path):
    (tmp_path / "saved.zip").write_text("<!DOCTYPE html><html>Sign in")
    refused = download("--source", f"text.zip={tmp_path / 'saved.zip'}")
    assert "is no archive, or a damaged one: it begins with b'<!DOCTYPE html><'" in refused.mistake


@pytest.mark.parametrize("packer", [bz2, lzma], ids=["bz2", "xz"])
def test_a_damaged_stream_is_named(download, tmp_path, packer):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        member = tarfile.TarInfo("a/1.jpg")
        member.size = 3_000_000  # some blocks of bzip2: the first is whole
        tar.addfile(member, io.BytesIO(random.Random(0).randbytes(member.size)))
    data = bytearray(packer.compress(whole.getvalue()))
    data[-len(data) // 4] ^= 0xFF
    (tmp_path / "broken").write_bytes(data)
    refused = download("--source", f"text.zip={tmp_path / 'broken'}")
    assert "broken is damaged (" in refused.mistake and "run the same command again" in refused.mistake


def test_a_zip_that_is_packed_otherwise_is_to_be_unpacked_by_hand(download, tmp_path):
    """Windows packs large folders by Deflate64, which Python does not unpack."""
    data = bytearray(zipped(tmp_path / "windows.zip", {"captions.txt": WORDS}).read_bytes())
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        method = data.index(mark) + place
        data[method : method + 2] = (9).to_bytes(2, "little")
    (tmp_path / "windows.zip").write_bytes(data)
    refused = download("--source", f"text.zip={tmp_path / 'windows.zip'}")
    assert "windows.zip can't be unpacked here (" in refused.mistake and "with another tool" in refused.mistake


def test_two_downloads_into_one_folder_do_not_meet(download, tmp_path):
    (tmp_path / "raw").mkdir()
    with alone_in(tmp_path / "raw", "download"):
        assert "another imgcap download is writing into" in download().mistake
    assert download().returncode == 0 and not (tmp_path / "raw/.download.lock").exists()
