"""Damage that training meets: what is skipped and named, what is refused, and that nobody is shifted by it."""

import io
import json
import os
import resource
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.batch import NO_IMAGE, PADDING
from imgcap.data.dataset import TrainDataset
from imgcap.data.loader import PlanSampler, TrainLoader, reading
from imgcap.data.plan import Plan, split_batch
from imgcap.errors import UserError
from imgcap.pictures.normalise import normalised_jpeg
from imgcap.pictures.opening import UnreadableImage
from imgcap.shards.builder import build
from imgcap.shards.foreign import expand, index_foreign
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source, image_id_of
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import Record

LONG = "word " * 2000  # 10,000 characters
CAPTIONS = (
    "\ufeffwith a byte order mark",
    "carriage\r\nreturn",
    'he said "hello", twice',
    "a, b, and c",
    "tab\tin it",
    "emoji 🎉 and 漢字",
    LONG,
)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """Fifty scenes in five shards, with captions of every odd kind."""
    root, reader = tmp_path_factory.mktemp("whole"), ShardReader(shards, "train")
    records = []
    for number in range(50):
        path = root / f"{number}.jpg"
        path.write_bytes(reader.read(number).jpeg)
        captions = (f"scene {number}", CAPTIONS[number % len(CAPTIONS)])
        records.append(Record(image_id_of(path.name), path.name, path, captions))
    build(Source("whole", {"train": records}, []), root / "set", Tokeniser("en"), shard_mb=0.11)
    assert len(ShardReader(root / "set", "train").shards) == 5
    return root / "set"


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def loader(folder, rank=0, ranks=1, workers=0, epochs=1, batch=6):
    reader = ShardReader(folder, "train")
    plan = Plan(3, reader.shard_counts, batch, reader.manifest_sha256)
    accumulation = split_batch(batch, None, ranks)
    words = Vocabulary.build(TokenCounts.load(folder).counts)
    dataset = TrainDataset(reader, words, DataConfig(image_size=32, augment="off", captions_per_image=2), 0)
    sampler = PlanSampler(plan, rank, ranks, accumulation, 0, epochs * plan.steps_per_epoch)
    return TrainLoader(dataset, sampler, workers, pin_memory=False)


def seen(folder, **options):
    """The image ids of each batch, and how many of them were damaged."""
    with reading(loader(folder, **options)) as batches:
        found = [batch.image_ids.clone().numpy() for batch in batches]
    return found, sum(int((ids == NO_IMAGE).sum()) for ids in found)


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_odd_captions_come_through_as_they_are(whole):
    reader = ShardReader(whole, "train")
    assert [reader.read(i).captions[1] for i in range(len(CAPTIONS))] == list(CAPTIONS)
    assert len(reader.read(6).tokens[1]) == 2000


def test_three_ranks_of_three_workers_over_five_shards(whole):
    alone, _ = seen(whole, epochs=2)
    ranks = [seen(whole, rank=rank, ranks=3, workers=3, epochs=2)[0] for rank in range(3)]
    together = [np.concatenate(parts) for parts in zip(*ranks, strict=True)]
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]


@pytest.mark.parametrize("member", ["jpg", "json"])
def test_a_flipped_bit_is_one_skipped_sample(copy, member, capfd):
    row = ShardReader(copy, "train")._index[7]
    flip(copy / f"train-{row.shard:05d}.tar", getattr(row, f"{member}_offset") + getattr(row, f"{member}_size") // 2)
    before, _ = seen(Path(str(copy)))
    errors = capfd.readouterr().err
    name = "" if member == "json" else f"{ShardReader(copy, 'train').read_text(7).file_name} ("
    assert errors.count(f"skipped: {name}sample 7 of") == 1 and "00000007" in errors and errors.count("skipped") == 1
    assert sum(len(ids) for ids in before) == 54 and sum(int((ids == NO_IMAGE).sum()) for ids in before) == 1


@pytest.mark.parametrize("batch", [6, 1])
def test_a_sound_picture_of_the_micro_batch_stands_in_for_a_damaged_one(copy, batch):
    """Blank ones would move BatchNorm's statistics; but where no other is sound there is no choice."""
    row = ShardReader(copy, "train")._index[7]
    flip(copy / f"train-{row.shard:05d}.tar", row.jpg_offset + row.jpg_size // 2)
    found = next(found for found in loader(Path(str(copy)), batch=batch) if (found.image_ids == NO_IMAGE).any())
    sound = found.images_BCHW[found.image_ids != NO_IMAGE]
    (stand_in,) = found.images_BCHW[found.image_ids == NO_IMAGE]
    assert not found.tokens_BKT[found.image_ids == NO_IMAGE].any()
    assert any((stand_in == other).all() for other in sound) if batch > 1 else not stand_in.any()


def test_a_shard_swapped_for_another_of_its_size_is_skipped_whole(copy, capfd):
    reader = ShardReader(copy, "train")
    first, second = copy / "train-00001.tar", copy / "train-00002.tar"
    size = first.stat().st_size
    other = bytearray(second.read_bytes()[:size].ljust(size, b"\0"))
    first.write_bytes(other)
    _, damaged = seen(copy)
    assert damaged == reader.shard_counts[1] and capfd.readouterr().err.count("skipped") == damaged


def test_a_tar_that_was_cut_since_is_refused_before_training(copy):
    os.truncate(copy / "train-00003.tar", 5000)
    with pytest.raises(UserError, match=r"train-00003\.tar has 5000 bytes, the manifest says \d+"):
        loader(copy)


def test_a_shard_that_is_missing_is_refused_before_training(copy):
    (copy / "train-00003.tar").unlink()
    with pytest.raises(UserError, match=r"train-00003\.tar cannot be read \(No such file or directory\)"):
        loader(copy)


def test_a_set_of_no_shards_is_refused(copy):
    path = copy / "manifest.json"
    content = json.loads(path.read_text())
    content["splits"]["train"]["shards"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"split train of .* has no shards"):
        loader(copy)


def test_shards_of_no_one_and_seven_samples(tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    for number, count in enumerate((0, 1, 7)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for key in range(count):
                for suffix, data in (("jpg", out.getvalue()), ("txt", b"words")):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    index_foreign(expand([f"{tmp_path}/*.tar"]), tmp_path / "set", Tokeniser("en"), split="train")
    for ranks in (1, 3):
        shares = [seen(tmp_path / "set", rank=rank, ranks=ranks, epochs=2)[0] for rank in range(ranks)]
        ids = np.concatenate([np.concatenate(share) for share in shares])
        assert len(ids) == 24 and len(set(ids) - {PADDING}) == 8  # 8 images in two batches of 6, twice


def test_a_manifest_with_other_counts_is_refused(copy):
    path = copy / "manifest.json"
    content = json.loads(path.read_text())
    content["splits"]["train"]["shards"][0]["samples"] += 1
    content["splits"]["train"]["shards"][1]["samples"] -= 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="count other samples"):
        loader(copy)


def test_an_index_of_another_build_is_refused(copy, shards):
    shutil.copy(shards / "train.index.npz", copy)
    with pytest.raises(UserError, match="is not the index of these shards"):
        loader(copy)


def test_an_image_of_900_million_pixels_is_refused_by_its_size_and_not_by_memory():
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="more than 89,478,485 pixels"):
        normalised_jpeg(bytes(data), 256, 90)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
