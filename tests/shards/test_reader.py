"""A reader gives every sample as it was written, in any process."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of
from imgcap.shards import reader as reader_module
from imgcap.shards.builder import build
from imgcap.shards.reader import ShardReader
from imgcap.shards.sample import Tokeniser
from imgcap.shards.source import Source
from imgcap.types import Sample


@pytest.fixture
def built(small_source: Source, words: Tokeniser, tmp_path: Path) -> Path:
    build(small_source, tmp_path / "set", words, shard_mb=0.009)
    return tmp_path / "set"


def everything(reader: ShardReader) -> list[Sample]:
    return [reader.read(i) for i in range(len(reader))]


def test_samples_are_the_records(built: Path, small_source: Source, words: Tokeniser) -> None:
    for split, records in small_source.splits.items():
        reader = ShardReader(built, split)
        expected = [
            Sample(
                record.image_id,
                record.file_name,
                list(record.captions),
                [words(caption) for caption in record.captions],
                record.path.read_bytes(),
            )
            for record in records
        ]
        assert everything(reader) == expected
        assert sum(reader.shard_counts) == len(reader) == len(records)
        assert len(reader.shard_counts) == len(reader.manifest.splits[split].shards)
        assert reader.manifest_sha256 == sha256_of(built / "manifest.json")
        for outside in (-1, len(reader)):
            with pytest.raises(IndexError):
                reader.read(outside)


def test_texts_are_those_of_the_samples_and_read_no_picture(built: Path) -> None:
    reader = ShardReader(built, "train")
    expected = [sample._replace(jpeg=b"") for sample in everything(reader)]
    row = reader._index[0]
    tar = built / reader.shards[row.shard].file
    data = bytearray(tar.read_bytes())
    data[row.jpg_offset + 20] ^= 1
    tar.write_bytes(data)
    assert [reader.read_text(i) for i in range(len(reader))] == expected
    with pytest.raises(UserError, match="damaged"):
        reader.read(0)
    data[row.json_offset + 20] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        reader.read_text(0)


def test_few_open_files_serve_many_shards(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(built, "train")
    expected = everything(reader)
    monkeypatch.setattr(reader_module, "_OPEN_FILES", 2)
    few = ShardReader(built, "train")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    assert everything(few) == expected
    assert len(few._descriptors) == 2
    few.close()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_pickled_reader_opens_its_own_files(built: Path) -> None:
    reader = ShardReader(built, "train")
    expected = everything(reader)
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert everything(copy) == expected


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_workers_read_the_same(built: Path, start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    reader = ShardReader(built, "train")
    expected = everything(reader)  # its files are open when the workers start
    places = range(len(reader))
    loader = DataLoader(
        places,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=reader.read,
        num_workers=2,
        multiprocessing_context=start,
    )
    assert list(loader) == expected
    assert everything(reader) == expected


def test_a_folder_that_is_not_whole_is_refused(built: Path) -> None:
    with pytest.raises(UserError, match="has no split 'tset'; it has train, val"):
        ShardReader(built, "tset")
    with pytest.raises(UserError, match=r"there is no shard folder .*imgcap build"):
        ShardReader(built / "nowhere", "train")
    shard = built / "train-00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(UserError, match=r"bytes, the manifest says .*imgcap verify"):
        ShardReader(built, "train")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001\.tar cannot be read .*imgcap build"):
        ShardReader(built, "train")
    shard.write_bytes(whole)
    (built / "train.index.npz").write_bytes((built / "val.index.npz").read_bytes())
    with pytest.raises(UserError, match="is not the index of these shards"):
        ShardReader(built, "train")
    content = json.loads((built / "manifest.json").read_text())
    content["splits"]["val"]["shards"] = []
    (built / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"split val .* has no shards"):
        ShardReader(built, "val")
    (built / "manifest.json").write_text(json.dumps({**content, "format_version": "x"}))
    with pytest.raises(UserError, match="format version 'x'"):
        ShardReader(built, "val")
    (built / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        ShardReader(built, "val")


def test_damage_behind_the_openings_back_names_the_sample(built: Path) -> None:
    reader = ShardReader(built, "train")
    row = reader._index[0]
    path = built / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[row.json_offset] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"sample 00000000 of .*train-00000\.tar is damaged"):
        reader.read(0)
    path.write_bytes(data[:600])
    with pytest.raises(UserError, match="is damaged"):
        reader.read(1)
