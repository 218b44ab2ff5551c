"""Tars that others wrote, indexed where they lie: every naming in use, and every way in which they may be broken."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import HostileServer
from hostile_tars import BY_NAME, CASES
from PIL import Image

from imgcap.errors import UserError
from imgcap.pictures.opening import decode
from imgcap.shards.foreign import expand, index_foreign, named_splits
from imgcap.shards.manifest import Manifest
from imgcap.shards.parallel import Workers
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.shards.verify import verify
from imgcap.text.tokeniser import Tokeniser

WHITE, RED = (255, 255, 255), (200, 0, 0)


def picture(form="JPEG", mode="RGB", colour=RED, size=(32, 24), **options):
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, form, **options)
    return out.getvalue()


def write(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def index(tars, out, **options):
    return index_foreign(expand([str(tar) for tar in tars]), out, Tokeniser("en"), **options)


def samples(folder, split="train"):
    reader = ShardReader(folder, split)
    return {sample.file_name: sample for sample in map(reader.read, range(len(reader)))}


KINDS = [
    ("a.jpg", picture()), ("a.txt", b"A red picture.\n"),
    ("b.jpeg", picture()), ("b.json", json.dumps({"caption": "Of JSON.", "url": "x"}).encode()),
    ("c.png", picture("PNG")), ("c.caption", "One.\nTwo, with “quotes” 🎉\n".encode()),
    ("d.webp", picture("WEBP")), ("d.json", json.dumps({"captions": ["First.", "Second."]}).encode()),
    ("folder/a.JPG", picture()), ("folder/a.txt", b"Of the same name elsewhere."),
    ("e.jpg", picture()), ("e.txt", b"The text counts."), ("e.json", b'{"caption": "not this", "key": 1}'),
    ("e.seg.png", picture("PNG")),
]  # fmt: skip


def test_the_samples_of_every_naming(tmp_path):
    tar = write(tmp_path / "x.tar", KINDS)
    manifest = index([tar], tmp_path / "set", split="train")
    found = samples(tmp_path / "set")
    assert {name: sample.captions for name, sample in found.items()} == {
        "x.tar/a": ["A red picture."],
        "x.tar/b": ["Of JSON."],
        "x.tar/c": ["One.", "Two, with “quotes” 🎉"],
        "x.tar/d": ["First.", "Second."],
        "x.tar/folder/a": ["Of the same name elsewhere."],
        "x.tar/e": ["The text counts."],
    }
    assert len({sample.image_id for sample in found.values()}) == 6 and not manifest.skipped
    assert found["x.tar/a"].tokens == [["a", "red", "picture", "."]] and found["x.tar/a"].jpeg == KINDS[0][1]
    assert TokenCounts.load(tmp_path / "set").counts["picture"] == 1
    assert not verify(tmp_path / "set", decode=True)
    with tarfile.open(tar) as untouched:
        assert len(untouched.getmembers()) == len(KINDS)


def test_pictures_that_are_no_plain_jpeg_are_decoded_upright_and_on_white(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture("PNG", "RGBA", (0, 0, 0, 0))
    members = [("t.jpg", picture(exif=turned)), ("t.txt", b"turned"), ("p.png", clear), ("p.txt", b"clear")]
    index([write(tmp_path / "x.tar", members)], tmp_path / "set", split="train")
    found = samples(tmp_path / "set")
    assert decode(found["x.tar/t"].jpeg, 32).size == (24, 32)
    assert decode(found["x.tar/p"].jpeg, 32).getpixel((3, 3)) == WHITE


def big_png(side):
    """The head of a PNG of that many pixels a side."""
    data = bytearray(picture("PNG", size=(1, 1)))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "members, reason",
    [
        ([("z.jpg", picture())], "image without captions"),
        ([("z.txt", b"words")], "sample without an image"),
        ([("z.jpg", picture()), ("z.txt", b" \n ")], "image without captions"),
        ([("z.jpg", b""), ("z.txt", b"words")], "zero bytes"),
        ([("z.jpg", b"no image at all"), ("z.txt", b"words")], "not an image"),
        ([("z.png", big_png(30_000)), ("z.txt", b"words")], "more than 89,478,485 pixels"),
        ([("z.jpg", picture()), ("z.json", b"{broken")], "captions that are no UTF-8 or no JSON"),
        ([("z.jpg", picture()), ("z.json", b'{"caption": null}')], "image without captions"),
        ([("z.jpg", picture()), ("z.txt", b"caf\xe9")], "captions that are no UTF-8 or no JSON"),
        ([("../z.jpg", picture()), ("../z.txt", b"words")], "unsafe member name"),
        ([("/etc/z.jpg", picture()), ("/etc/z.txt", b"words")], "unsafe member name"),
    ],
)
def test_what_is_no_sample_is_skipped_counted_and_named(tmp_path, members, reason):
    tar = write(tmp_path / "x.tar", [*members, ("good.jpg", picture()), ("good.txt", b"A good one.")])
    manifest = index([tar], tmp_path / "set", split="train")
    assert {found: names.count for found, names in manifest.skipped.items()} == {reason: 1}
    assert list(samples(tmp_path / "set")) == ["x.tar/good"]


def test_a_pickle_is_never_executed(tmp_path):
    proof = tmp_path / "executed"
    pickle = b"cos\nsystem\n(S'touch %s'\ntR." % str(proof).encode()
    members = [("a.jpg", picture()), ("a.txt", b"words"), ("a.pkl", pickle), ("a.pyd", pickle), ("a.pth", pickle)]
    index([write(tmp_path / "x.tar", members)], tmp_path / "set", split="train")
    assert not verify(tmp_path / "set", decode=True) and len(samples(tmp_path / "set")) == 1
    assert not proof.exists()


@pytest.mark.parametrize("keep", [300, 700, -1024, -600, 512 * 8])
def test_a_cut_tar_is_refused_or_gives_what_is_whole(tmp_path, keep):
    """In a header, in data, without the closing blocks, within these, at a member's end."""
    tar = write(tmp_path / "x.tar", [(f"{n}.{suffix}", data) for n in range(4) for suffix, data in
                                     (("jpg", picture()), ("txt", b"words"))])  # fmt: skip
    with tarfile.open(tar) as whole:
        end = max(member.offset_data + 512 * -(-member.size // 512) for member in whole)
    os.truncate(tar, keep if keep > 0 else end + 1024 + keep)
    with pytest.raises(UserError, match=r"x\.tar is cut.*--skip-damaged"):
        index([tar], tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
    try:
        manifest = index([tar], tmp_path / "other", split="train", skip_damaged=True)
    except UserError as error:
        assert "no sample is left" in str(error) and keep in (300, 700)
    else:
        assert manifest.skipped["tar that is cut or can't be read to its end"].count == 1
        assert not verify(tmp_path / "other")


@pytest.mark.parametrize("way", ["header", "joined"])
def test_what_lies_behind_a_broken_header_or_an_end_in_the_middle_is_not_left_out_silently(tmp_path, way):
    members = [(f"{n}.{suffix}", data) for n in range(5) for suffix, data in (("jpg", picture()), ("txt", b"words"))]
    tar = write(tmp_path / "x.tar", members)
    data = bytearray(tar.read_bytes())
    with tarfile.open(tar) as whole:
        data[whole.getmembers()[4].offset + 3] ^= 1
    tar.write_bytes(bytes(data) if way == "header" else 2 * tar.read_bytes())
    with pytest.raises(UserError, match=r"neither a member nor the end; fetch it again.*--skip-damaged"):
        index([tar], tmp_path / "set")


def test_tars_of_one_name_in_two_folders_keep_their_images_apart(tmp_path):
    tars = []
    for folder in ("cc3m", "cc12m"):
        (tmp_path / folder).mkdir()
        tars.append(write(tmp_path / folder / "0.tar", [("7.jpg", picture()), ("7.txt", folder.encode())]))
    index(tars, tmp_path / "set", split="train")
    found = samples(tmp_path / "set")
    assert set(found) == {"cc3m/0.tar/7", "cc12m/0.tar/7"}
    assert len({sample.image_id for sample in found.values()}) == 2


def test_verify_names_every_damaged_tar_and_no_strangers(two):
    index([f"{two}/*.tar"], two, split="train")
    assert verify(two) == []
    os.truncate(two / "00000.tar", 5000)
    assert {damage.file for damage in verify(two)} == {str(two / "00000.tar")}


def test_half_a_pair_of_surrogates_spoils_one_caption_at_most(tmp_path):
    members = [("a.jpg", picture()), ("a.json", b'{"caption": "a smile \\ud83d"}')]
    index([write(tmp_path / "x.tar", members)], tmp_path / "set", split="train")
    assert samples(tmp_path / "set")["x.tar/a"].captions == ["a smile ?"]


def test_braces_that_are_not_closed_are_an_error():
    with pytest.raises(UserError, match="is no pattern"):
        expand(["x{00000..00331.tar"])


def test_hostile_tars_are_indexed_together_and_verify_finds_nothing_wrong(tmp_path):
    names = {case.name: case.write(tmp_path / f"{case.name}.tar") for case in CASES}
    manifest = index(names.values(), tmp_path / "set", split="train", skip_damaged=True)
    expected = {f"{case.name}.tar/{key}": captions for case in CASES for key, captions in case.samples.items()}
    assert {name: sample.captions for name, sample in samples(tmp_path / "set").items()} == expected
    assert verify(tmp_path / "set", decode=True) == []
    skipped = {reason: sum(case.skipped.get(reason, 0) for case in CASES) for case in CASES for reason in case.skipped}
    skipped["tar that is cut or can't be read to its end"] = sum(bool(case.damaged) for case in CASES)
    assert {reason: names.count for reason, names in manifest.skipped.items()} == skipped


def test_it_is_told_how_many_samples_were_joined(tmp_path, capfd):
    index([BY_NAME["apart"].write(tmp_path / "x.tar")], tmp_path / "set", split="train")
    assert "2 samples were joined whose members lie apart" in capfd.readouterr().err


@pytest.mark.parametrize(
    "captions, reason",
    [
        ("x " * 600_000, "caption of more than 20,000 letters"),
        ("(" * 10_000, "caption with a word of more than 2,000 letters"),
    ],
)
def test_a_caption_that_no_tokeniser_takes_costs_itself(tmp_path, captions, reason):
    members = [("a.jpg", picture()), ("a.txt", f"A dog .\n{captions}".encode())]
    manifest = index([write(tmp_path / "x.tar", members)], tmp_path / "set", split="train")
    assert {why: names.count for why, names in manifest.skipped.items()} == {reason: 1}
    assert samples(tmp_path / "set")["x.tar/a"].captions == ["A dog ."]


def test_a_compressed_tar_is_refused_with_a_command_that_unpacks_it(tmp_path):
    plain = BY_NAME["versions"].write(tmp_path / "plain.tar").read_bytes()
    packed = tmp_path / "of me.tgz"
    packed.write_bytes(gzip.compress(plain))
    with pytest.raises(UserError, match="is compressed, and an index needs plain tars") as refused:
        index([packed], tmp_path / "set", skip_damaged=True)
    subprocess.run(str(refused.value).partition("unpack it with: ")[2], shell=True, check=True)
    assert (tmp_path / "of me.tar").read_bytes() == plain
    packed.with_suffix(".zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99))
    with pytest.raises(UserError, match=r"zstd -dc .*of me\.zst"):
        index([packed.with_suffix(".zst")], tmp_path / "set")


@pytest.fixture
def two(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        members = []
        for n in range(60):
            noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            out = io.BytesIO()
            noise.save(out, "JPEG")
            members += [(f"{number}{n:04d}.jpg", out.getvalue()), (f"{number}{n:04d}.txt", f"picture {n}".encode())]
        write(tmp_path / f"{number:05d}.tar", members)
    return tmp_path


def test_splits_by_hash_share_no_image_and_workers_change_nothing(two):
    alone = index([f"{two}/{{00000..00001}}.tar"], two / "alone")
    parallel = index([f"{two}/0*.tar"], two / "parallel", workers=2)
    assert alone == parallel
    assert (two / "alone/manifest.json").read_bytes() == (two / "parallel/manifest.json").read_bytes()
    names = {split: set(samples(two / "alone", split)) for split in ("train", "val", "test")}
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 120
    assert len(names["train"]) > 90 and names["val"] and names["test"]


def test_tars_behind_an_address(two, tmp_path):
    server = HostileServer(two)
    try:
        index([f"{server.url}/{{00000..00001}}.tar"], two / "set", split="train")
        assert not list((two / "set").glob("*.tar"))
        reader = ShardReader(Place(two / "set", tmp_path / "cache"), "train")
        assert reader.is_remote and len(reader) == 120
        index([f"{two}/{{00000..00001}}.tar"], two / "here", split="train")
        assert [reader.read(i) for i in (0, 60, 119)] == [
            ShardReader(two / "here", "train").read(i) for i in (0, 60, 119)
        ]
    finally:
        server.close()


def test_a_tar_that_changed_since_is_damage(two):
    index([f"{two}/*.tar"], two / "set", split="train")
    tar, manifest = two / "00001.tar", Manifest.load(two / "set")
    data = bytearray(tar.read_bytes())
    data[ShardReader(two / "set", "train")._index[60].jpg_offset + 200] ^= 1
    tar.write_bytes(data)
    assert {damage.file for damage in verify(two / "set")} == {str(tar)}
    with pytest.raises(UserError, match=r"00000060 of .*00001\.tar is damaged"):
        ShardReader(two / "set", "train").read(60)
    os.truncate(tar, 1000)
    with pytest.raises(UserError, match=r"00001\.tar has 1000 bytes"):
        ShardReader(two / "set", "train")
    assert manifest == Manifest.load(two / "set")


@pytest.mark.parametrize("pattern", ["nothing-*.tar", "nothing-{0..3}.tar", "nothing.tar"])
def test_a_pattern_of_nothing_is_an_error(tmp_path, pattern):
    with pytest.raises(UserError, match=r"there is no .*nothing"):
        expand([f"{tmp_path}/{pattern}"])


def test_a_range_of_more_tars_than_anybody_has_is_refused_at_once():
    for pattern in ("a/{0..99999999}.tar", "{000..999}/{0000..9999}.tar"):
        with pytest.raises(UserError, match=r"means more than 1,000,000 tars; write the ranges"):
            expand([pattern])


def test_a_tar_named_twice_is_an_error(two):
    with pytest.raises(UserError, match="named twice"):
        expand([f"{two}/*.tar", f"{two}/00000.tar"])


def test_wildcards_are_those_of_a_shell(tmp_path):
    for name in ("a/0.tar", "b/0.tar", "b/c/1.tar", ".hidden/2.tar", "b/._0.tar", "b/odd[1].tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/folder.tar").mkdir()

    def found(pattern):
        return [str(Path(tar).relative_to(tmp_path)) for tar in expand([f"{tmp_path}/{pattern}"])]

    assert found("*/0.tar") == ["a/0.tar", "b/0.tar"]
    assert found("**/*.tar") == ["a/0.tar", "b/0.tar", "b/c/1.tar", "b/odd[1].tar"]
    assert found("b/odd[1].tar") == ["b/odd[1].tar"] and found("{b,a}/?.tar") == ["b/0.tar", "a/0.tar"]
    with pytest.raises(UserError, match=r"is a folder; name the tars in it: .*/a/\*\.tar"):
        found("a")


def test_the_home_folder_is_known_in_every_pattern(two, monkeypatch):
    monkeypatch.setenv("HOME", str(two))
    assert expand(["~/0000{0,1}.tar"]) == [f"{two}/00000.tar", f"{two}/00001.tar"]


def test_missing_tars_are_named_at_once_and_left_out_if_asked_for(two):
    with pytest.raises(
        UserError, match=r"there is no .*00002\.tar, .*00003\.tar \(2 of 4 tars\); check.*--skip-missing"
    ):
        index_foreign(named_splits([f"{two}/{{00000..00003}}.tar"])[0], two / "set", Tokeniser("en"))
    tars, _ = named_splits([f"{two}/{{00000..00003}}.tar"])
    manifest = index_foreign(tars, two / "set", Tokeniser("en"), split="train", skip_missing=True)
    assert manifest.skipped["tar that is not there"].names == (f"{two}/00002.tar", f"{two}/00003.tar")
    assert manifest.splits["train"].images == 120 and "2 foreign tars" in manifest.settings.source
    with pytest.raises(UserError, match="no sample is left"):
        index_foreign([f"{two}/9.tar"], two / "other", Tokeniser("en"), skip_missing=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_fetched_before_a_missing_tar_was_met_is_not_fetched_again(two, workers):
    server = HostileServer(two)
    try:
        tars = expand([f"{server.url}/{{00000..00004}}.tar"])
        options = {"split": "train", "workers": workers}
        with pytest.raises(UserError, match=r"there is no .*00002\.tar, .*00003\.tar, .*00004\.tar \(3 of 5 tars\)"):
            index_foreign(tars, two / "set", Tokeniser("en"), **options)
        server.asked.clear()
        left_out = index_foreign(tars, two / "set", Tokeniser("en"), skip_missing=True, **options)
        assert {path for path, _ in server.asked} == {f"/0000{n}.tar" for n in (2, 3, 4)}
        assert left_out.splits == index_foreign(tars[:2], two / "anew", Tokeniser("en"), **options).splits
        assert verify(two / "set") == [] and not [path for path in (two / "set").iterdir() if path.name[0] == "."]
    finally:
        server.close()


def test_parts_of_an_earlier_call_are_taken_only_where_they_would_come_out_the_same(two):
    server = HostileServer(two)
    try:
        tars = expand([f"{server.url}/{{00000..00002}}.tar"])
        for change in ({"split": "val"}, {"split": "train"}):
            with pytest.raises(UserError, match="there is no"):
                index_foreign(tars, two / "set", Tokeniser("en"), **change)
        (two / "set" / "train-00000.captions").write_bytes(b"of another")
        server.asked.clear()
        manifest = index_foreign(tars, two / "set", Tokeniser("en"), split="train", skip_missing=True)
        assert {path for path, _ in server.asked} == {"/00000.tar", "/00002.tar"}
        assert list(manifest.splits) == ["train"] and verify(two / "set") == []
    finally:
        server.close()


def test_splits_may_be_named_tar_by_tar(two):
    tars, split = named_splits([f"train={two}/00000.tar", f"validation={two}/0000[1-9].tar"])
    manifest = index_foreign(tars, two / "set", Tokeniser("en"), split=split)
    assert {name: info.images for name, info in manifest.splits.items()} == {"train": 60, "val": 60}
    assert manifest.settings.split_rule == "by tar: 1 train, 1 val"
    assert all(name.startswith("00001.tar/1") for name in samples(two / "set", "val"))


@pytest.mark.parametrize(
    "patterns, split, told",
    [
        (["train=TWO/00000.tar", "TWO/00001.tar"], None, "00001.tar and train=.*before each pattern, or before none"),
        (["train=TWO/00000.tar"], "val", "--split val and train=.* don't go together"),
        (["train=TWO/0*.tar", "val=TWO/00001.tar"], None, "00001.tar is named twice"),
        (["train=TWO/00000.tar", "val=TWO/same.tar"], None, "is named twice"),
        (["train="], None, "no tars are named"),
    ],
)
def test_splits_that_contradict_each_other_are_an_error(two, patterns, split, told):
    (two / "same.tar").symlink_to("00000.tar")
    with pytest.raises(UserError, match=told):
        named_splits([pattern.replace("TWO", str(two)) for pattern in patterns if pattern], split)


def test_a_damaged_set_of_indexed_tars_is_not_to_be_built(two, command):
    index([f"{two}/*.tar"], two / "set", split="train")
    write(two / "stray.tar", KINDS)
    assert command("tools/verify_shards.py", two / "set").returncode == 0
    os.truncate(two / "00000.tar", 5000)
    ended = command("tools/verify_shards.py", two / "set")
    assert ended.returncode == 1 and "imgcap build" not in ended.stdout
    assert "put its tars back as they were indexed" in ended.stdout and "imgcap index TARS" in ended.stdout
    with pytest.raises(UserError, match=r"put its tars back as they were indexed.*imgcap index"):
        ShardReader(two / "set", "train")


def test_the_tool_indexes_and_says_what_is_there(two, warm):
    def run(*arguments):
        command = ["tools/index_shards.py", *arguments, "--out", two / "set", "--workers", "1"]
        return warm[False].run(command, Path(__file__).parents[2], os.environ)

    ended = run(f"{two}/{{00000..00001}}.tar")
    assert ended.returncode == 0, ended.stderr
    assert "images, " in ended.stdout and "by image, a hash with seed 0" in ended.stdout
    again = run(f"{two}/*.tar")
    assert again.returncode == 2 and "holds a shard set already" in again.stderr


def test_two_indexings_of_one_folder_do_not_meet(two):
    tars, out = sorted(two.glob("*.tar")), two / "set"

    class IndexesToo(Tokeniser):
        def __call__(self, caption):
            with pytest.raises(UserError, match=r"another imgcap index is writing into .*; wait for it"):
                index(tars, out)
            return super().__call__(caption)

    index_foreign([str(tar) for tar in tars], out, IndexesToo("en"))
    assert verify(out) == [] and not list(out.glob(".*"))


def test_a_name_of_a_split_is_ours_or_part_of_a_file_name(two):
    assert named_splits([f"{two}/*.tar"], "Validation")[1] == "val"
    assert named_splits([f"{two}/*.tar"], "mine_2")[1] == "mine_2"
    with pytest.raises(UserError, match="--split 'a/b' is no name of a split; write train, val or test"):
        named_splits([f"{two}/*.tar"], "a/b")


def test_addresses_that_differ_in_a_slash_have_names_of_their_own(tmp_path):
    same, other = "http://127.0.0.1:1/a/0.tar", "http://127.0.0.1:1/a//0.tar"
    with pytest.raises(UserError, match=r"127\.0\.0\.1"):  # refused, and not in an endless loop
        index_foreign([same, other], tmp_path / "set", Tokeniser("en"))


def test_a_process_takes_one_tar_at_a_time(two):
    """Tars are large: one process of many would else index sixteen before another had any."""
    with Workers(_process, 2, chunk=1) as workers:
        assert len(set(workers.map(range(8)))) == 2


def _process(_):
    time.sleep(0.05)
    return os.getpid()
