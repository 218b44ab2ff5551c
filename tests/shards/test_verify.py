"""No change of a shard set goes unseen."""

import json
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of
from imgcap.shards.builder import build
from imgcap.shards.index import Index
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader
from imgcap.shards.sample import Tokeniser
from imgcap.shards.source import Source
from imgcap.shards.verify import Damage, verify


@pytest.fixture
def built(small_source: Source, words: Tokeniser, tmp_path: Path) -> Path:
    build(small_source, tmp_path / "set", words, shard_mb=0.009)
    return tmp_path / "set"


def flip(path: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def test_a_whole_set_has_no_damage(built: Path) -> None:
    assert verify(built) == verify(built, decode=True) == []


def test_any_flipped_bit_is_seen(built: Path) -> None:
    files = sorted(path for path in built.iterdir() if path.name != "manifest.json")

    @given(st.sampled_from(files), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
    def check(path: Path, place: float, bit: int) -> None:
        offset = int(place * path.stat().st_size)
        flip(path, offset, 1 << bit)
        try:
            assert path.name in {damage.file for damage in verify(built)}
        finally:
            flip(path, offset, 1 << bit)

    check()
    assert verify(built) == []


def test_any_truncation_is_seen(built: Path) -> None:
    path = built / "train-00001.tar"
    whole = path.read_bytes()
    for size in range(0, len(whole), 512):
        path.write_bytes(whole[:size])
        assert path.name in {damage.file for damage in verify(built)}


def test_a_flipped_byte_of_a_sample_names_it(built: Path) -> None:
    reader = ShardReader(built, "train")
    row = next(reader._index[i] for i in range(len(reader)) if reader._index[i].shard == 1)
    flip(built / "train-00001.tar", row.jpg_offset + row.jpg_size // 2)
    (damage,) = verify(built)
    assert (damage.file, damage.key) == ("train-00001.tar", f"{row.key:08d}")
    assert "jpg has other bytes" in damage.what


def test_a_tar_cut_between_two_members_names_the_half_sample(built: Path) -> None:
    reader = ShardReader(built, "train")
    row = next(reader._index[i] for i in range(len(reader)) if reader._index[i].shard == 1)
    path = built / "train-00001.tar"
    path.write_bytes(path.read_bytes()[: row.json_offset - 512] + bytes(1024))
    damages = verify(built)
    assert Damage(path.name, f"{row.key:08d}", "has the members jpg in place of jpg and json") in damages
    assert any("bytes, the manifest says" in damage.what for damage in damages)


def test_a_foreign_index_a_missing_shard_and_a_stray_one(built: Path) -> None:
    shutil.copy(built / "val.index.npz", built / "train.index.npz")
    (built / "train-00002.tar").unlink()
    (built / "token_counts.json").unlink()
    shutil.copy(built / "val-00000.tar", built / "train-00099.tar")
    assert {(damage.file, damage.what) for damage in verify(built)} == {
        ("train.index.npz", "is not the index of these shards (sha256)"),
        ("train-00002.tar", "is missing"),
        ("token_counts.json", "is missing"),
        ("train-00099.tar", "is not in the manifest"),
    }


def test_decode_finds_what_hashes_cannot(built: Path) -> None:
    """A JPEG that was bad before it was hashed: here its bytes, and all hashes over them, are replaced."""
    reader = ShardReader(built, "train")
    rows = [reader._index[i] for i in range(len(reader))]
    shard, index = built / "train-00000.tar", built / "train.index.npz"
    data = bytearray(shard.read_bytes())
    end = rows[0].jpg_offset + rows[0].jpg_size
    data[end - 300 : end] = bytes(300)
    shard.write_bytes(data)
    rows[0] = rows[0]._replace(jpg_crc32=zlib.crc32(data[rows[0].jpg_offset : end]))
    Index.from_rows(rows).save(built, "train")
    manifest = (built / "manifest.json").read_text()
    manifest = manifest.replace(reader.manifest.splits["train"].shards[0].sha256, sha256_of(shard))
    manifest = manifest.replace(reader.manifest.splits["train"].index_sha256, sha256_of(index))
    (built / "manifest.json").write_text(manifest)
    assert verify(built) == []
    assert verify(built, decode=True) == [Damage("train-00000.tar", "00000000", "jpg cannot be decoded")]


def test_a_damaged_manifest_is_damage_and_none_is_a_mistake(built: Path) -> None:
    path = built / "manifest.json"
    content = json.loads(path.read_text())
    for bad in ('{"format_version": 1}', "{", "[]", json.dumps({**content, "splits": {"train": {}}})):
        path.write_text(bad)
        assert [damage.file for damage in verify(built)] == ["manifest.json"]
        with pytest.raises(UserError, match="is damaged"):
            Manifest.load(built)
    path.write_text(json.dumps({**content, "format_version": 2}))
    with pytest.raises(UserError, match="format version 2, this program reads version 1"):
        verify(built)
    path.unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        verify(built)
    with pytest.raises(UserError, match="there is no shard folder"):
        verify(built / "nowhere")
