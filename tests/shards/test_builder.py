"""A built set holds what the source said, wherever and by however many processes it was built."""

import dataclasses
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from imgcap.errors import UserError
from imgcap.shards.builder import build
from imgcap.shards.foreign import index_foreign
from imgcap.shards.manifest import Manifest, SkippedNames
from imgcap.shards.reader import ShardReader
from imgcap.shards.sample import Tokeniser
from imgcap.shards.source import Skipped, Source
from imgcap.shards.verify import verify
from imgcap.types import Record

SMALL_SHARD = 0.009  # MB: three samples of the small source


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_builds_are_byte_identical(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(small_source, tmp_path / name, words, shard_mb=SMALL_SHARD)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert "train-00003.tar" in contents(tmp_path / "one")


def test_a_shard_has_the_bytes_that_webdataset_would_write(
    small_source: Source, words: Tokeniser, tmp_path: Path
) -> None:
    build(small_source, tmp_path / "set", words)
    shard = tmp_path / "set" / "train-00000.tar"
    theirs = io.BytesIO()
    with webdataset.TarWriter(theirs, encoder=False, mtime=0) as writer:
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
            writer.write({"__key__": sample["__key__"], "jpg": sample["jpg"], "json": sample["json"]})
    assert shard.read_bytes() == theirs.getvalue()


def test_shards_stay_below_their_size(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    manifest = build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    records = tarfile.RECORDSIZE  # tars are filled up to it
    assert all(shard.bytes <= SMALL_SHARD * 1e6 + records for shard in manifest.splits["train"].shards)
    tiny = build(small_source, tmp_path / "tiny", words, shard_mb=0.000001)
    assert [shard.samples for shard in tiny.splits["train"].shards] == [1] * 12


def test_plain_webdataset_reads_the_samples(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    manifest = build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    urls = [str(tmp_path / "set" / shard.file) for shard in manifest.splits["train"].shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:08d}" for i in range(12)]
    for sample, record in zip(samples, small_source.splits["train"], strict=True):
        assert sample["jpg"] == record.path.read_bytes()
        assert json.loads(sample["json"]) == {
            "image_id": record.image_id,
            "file_name": record.file_name,
            "captions": list(record.captions),
            "tokens": [words(caption) for caption in record.captions],
        }


def test_index_offsets_are_those_of_tarfile(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    manifest = build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    reader = ShardReader(tmp_path / "set", "train")
    found = []
    for number, shard in enumerate(manifest.splits["train"].shards):
        with tarfile.open(tmp_path / "set" / shard.file) as tar:
            found += [(number, member.name, member.offset_data, member.size) for member in tar]
    rows = [reader._index[i] for i in range(len(reader))]
    expected = [
        entry
        for row in rows
        for entry in (
            (row.shard, f"{row.key:08d}.jpg", row.jpg_offset, row.jpg_size),
            (row.shard, f"{row.key:08d}.json", row.json_offset, row.json_size),
        )
    ]
    assert found == expected


def test_token_counts_are_those_of_the_train_split(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    build(small_source, tmp_path / "set", words, language="xx", shard_mb=SMALL_SHARD)
    content = json.loads((tmp_path / "set" / "token_counts.json").read_text())
    captions = [caption for record in small_source.splits["train"] for caption in record.captions]
    assert content["counts"] == Counter(token for caption in captions for token in words(caption))
    assert content["lengths"] == {
        str(length): count for length, count in sorted(Counter(len(words(caption)) for caption in captions).items())
    }
    ranked = list(content["counts"].items())
    assert ranked == sorted(ranked, key=lambda item: (-item[1], item[0]))
    assert (content["tokeniser"], content["language"]) == (words.name, "xx")


def test_the_manifest_tells_what_the_design_says(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    build(small_source, tmp_path / "set", words, resize=24)
    content = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert content["format_version"] == 1
    assert (content["name"], content["tokeniser"], content["language"]) == ("small", words.name, "en")
    assert (content["resize"], content["quality"]) == (24, 90)
    assert content["splits"]["val"]["images"] == 4
    assert content["splits"]["val"]["captions"] == 8
    assert content["skipped"] == {}
    assert Manifest.load(tmp_path / "set").splits["train"].images == 12
    sample = ShardReader(tmp_path / "set", "val").read(0)
    assert min(Image.open(io.BytesIO(sample.jpeg)).size) == 24


def with_record(source: Source, path: Path, captions: tuple[str, ...] = ("a caption",), number: int = 0) -> Source:
    record = Record(number, path.name, path, captions)
    return dataclasses.replace(source, splits={**source.splits, "train": [record, *source.splits["train"]]})


def test_bad_samples_are_skipped_counted_and_named(
    small_source: Source, words: Tokeniser, tmp_path: Path, photo: Callable[..., Path]
) -> None:
    whole = photo(tmp_path / "whole.jpg", 200, 200).read_bytes()
    bad = {"half.jpg": whole[:2000], "empty.jpg": b"", "text.jpg": b"I am no photo"}
    source = dataclasses.replace(small_source, skipped=[Skipped("lost.jpg", "captions without an image")])
    for number, (name, data) in enumerate(bad.items()):
        (tmp_path / name).write_bytes(data)
        source = with_record(source, tmp_path / name, number=number)
    source = with_record(source, tmp_path / "whole.jpg", (" ", "\u2003"), number=8)
    source = with_record(source, tmp_path / "missing.jpg", number=9)
    manifest = build(source, tmp_path / "set", words)
    assert manifest.skipped == {
        "cannot be read: No such file or directory": SkippedNames(1, ("missing.jpg",)),
        "captions without an image": SkippedNames(1, ("lost.jpg",)),
        "empty caption": SkippedNames(2, ("whole.jpg", "whole.jpg")),
        "image without captions": SkippedNames(1, ("whole.jpg",)),
        "not an image": SkippedNames(1, ("text.jpg",)),
        "truncated or damaged image": SkippedNames(1, ("half.jpg",)),
        "zero bytes": SkippedNames(1, ("empty.jpg",)),
    }
    reader = ShardReader(tmp_path / "set", "train")
    expected = [record.image_id for record in small_source.splits["train"]]
    assert [reader.read(i).image_id for i in range(len(reader))] == expected
    assert Manifest.load(tmp_path / "set") == manifest


def test_a_split_of_bad_images_alone_is_left_out(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    record = Record(5, "empty.jpg", tmp_path / "empty.jpg", ("a caption",))
    source = dataclasses.replace(small_source, splits={**small_source.splits, "test": [record]})
    manifest = build(source, tmp_path / "set", words)
    assert list(manifest.splits) == ["train", "val"]
    assert manifest.skipped == {"zero bytes": SkippedNames(1, ("empty.jpg",))}
    with pytest.raises(UserError, match=r"no image is left to put into .*: 1 × zero bytes"):
        build(dataclasses.replace(source, splits={"train": [record]}), tmp_path / "none", words)


def test_an_image_id_in_two_places_is_an_error(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    shared = small_source.splits["val"][0]
    source = with_record(small_source, shared.path, number=shared.image_id)
    with pytest.raises(UserError, match=rf"image id {shared.image_id} belongs to both .*\(train\) and .*\(val\)"):
        build(source, tmp_path / "set", words)


def test_a_finished_set_is_left_alone(
    small_source: Source, words: Tokeniser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(small_source, tmp_path / "set", words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    capsys.readouterr()
    assert build(small_source, tmp_path / "set", words) == first
    assert "is finished already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()} == before


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"resize": 16}, r"--resize None there, 16 now"),
        ({"quality": 50}, r"--quality 90 there, 50 now"),
        ({"shard_mb": 1}, r"--shard-mb 64 there, 1 now"),
        ({"language": "de"}, r"--language en there, de now"),
    ],
)
def test_other_settings_are_refused_by_name(
    small_source: Source, words: Tokeniser, tmp_path: Path, others: dict[str, int], named: str
) -> None:
    build(small_source, tmp_path / "set", words)
    before = contents(tmp_path / "set")
    with pytest.raises(UserError, match=f"{named}.*--force"):
        build(small_source, tmp_path / "set", words, **others)
    assert contents(tmp_path / "set") == before
    build(small_source, tmp_path / "set", words, **others, force=True)
    build(small_source, tmp_path / "fresh", words, **others)
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh")


def test_other_records_are_refused(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    fewer = dataclasses.replace(small_source, splits={**small_source.splits, "val": small_source.splits["val"][:2]})
    with pytest.raises(UserError, match=r"--limit.* train 12, val 4 there, train 12, val 2 now"):
        build(fewer, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    train = [dataclasses.replace(record, captions=("another",)) for record in small_source.splits["train"]]
    with pytest.raises(UserError, match="the captions, images or splits"):
        build(
            dataclasses.replace(small_source, splits={**small_source.splits, "train": train}),
            tmp_path / "set",
            words,
            shard_mb=SMALL_SHARD,
        )
    only_val = dataclasses.replace(small_source, splits={"val": small_source.splits["val"]})
    build(only_val, tmp_path / "set", words, force=True)
    assert sorted(contents(tmp_path / "set")) == ["manifest.json", "val-00000.tar", "val.index.npz"]


@pytest.mark.parametrize("lost", ["train-00001.tar", "val.index.npz", "token_counts.json"])
def test_a_finished_set_that_lost_a_file_is_mended(
    small_source: Source, words: Tokeniser, tmp_path: Path, lost: str
) -> None:
    build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    before = contents(tmp_path / "set")
    (tmp_path / "set" / lost).unlink()
    build(small_source, tmp_path / "set", words, shard_mb=SMALL_SHARD)
    assert contents(tmp_path / "set") == before


def test_what_is_not_ours_is_not_touched(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "train-00000.tar").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="without a manifest"):
        build(small_source, folder, words)
    assert contents(folder) == {"notes.txt": b"mine", "train-00000.tar": b"somebody's"}
    build(small_source, folder, words, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another --out"):
        build(small_source, tmp_path / "file", words)
    with pytest.raises(UserError, match="choose another --out"):
        build(small_source, tmp_path / "file" / "below", words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_an_error(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match="Permission denied; choose another --out"):
        build(small_source, tmp_path / "locked" / "set", words)


def test_tars_that_were_indexed_are_not_built_over(small_source: Source, words: Tokeniser, tmp_path: Path) -> None:
    """An index of a folder's own tars lies among them; they are somebody's, and `--force` is not for them."""
    folder = tmp_path / "set"
    build(small_source, folder, words)
    (folder / "manifest.json").unlink()
    tars = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    index_foreign(sorted(map(str, folder.glob("*.tar"))), folder, words)
    for force in (False, True):
        with pytest.raises(UserError, match=r"which was indexed there and not built; choose another --out"):
            build(small_source, folder, words, force=force)
    assert {path.name: path.read_bytes() for path in folder.glob("*.tar")} == tars
    assert verify(folder) == []
