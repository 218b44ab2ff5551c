"""Tars without an index: what is drawn of them, and what is left out by name."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path

import pytest
from hostile_tars import CASES
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.batch import counted_ids
from imgcap.data.loader import reading
from imgcap.data.plan import Accumulation
from imgcap.data.stream import StreamLoader, StreamPlan, check_tars
from imgcap.errors import UserError
from imgcap.shards.foreign import expand
from imgcap.shards.source import image_id_of
from imgcap.text.vocabulary import Vocabulary

WORDS = {"a": 9, "red": 5, "blue": 5, "square": 5}
IMAGES = 8


def picture(colour):
    data = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(data, "JPEG")
    return data.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def tars(tmp_path):
    red = {f"{key:03}.jpg": picture("red") for key in range(6)} | {f"{key:03}.txt": b"a red square" for key in range(6)}
    blue = {f"{key:03}.png": picture("blue") for key in range(6)}
    blue |= {f"{key:03}.json": json.dumps({"caption": "a blue square"}).encode() for key in range(6)}
    return [
        write_tar(tmp_path / f"{name}.tar", dict(sorted(members.items())))
        for name, members in (("red", red), ("blue", blue))
    ]


def loader(tars, workers=0, rank=0, start=0, pipes=False, buffer=10, augment="off"):
    data = DataConfig(image_size=16, augment=augment, workers=workers, captions_per_image=2, max_tokens=4)
    data = data.model_copy(update={"stream_buffer": buffer})
    plan = StreamPlan(3, check_tars(tars, pipes), 100, IMAGES)
    return StreamLoader(plan, data, Vocabulary.build(WORDS), Accumulation(IMAGES, 1), rank, start, False)


def take(count, *arguments, **options):
    with reading(loader(*arguments, **options)) as batches:
        return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_pictures_with_their_captions_for_ever(tars, workers):
    vocabulary = Vocabulary.build(WORDS)
    seen = set()
    for batch in take(8, tars, workers):
        assert len(counted_ids(batch)) == IMAGES
        for image_CHW, tokens_KT, image_id in zip(batch.images_BCHW, batch.tokens_BKT, batch.image_ids, strict=True):
            colour = "red" if image_CHW[0].float().mean() > 128 else "blue"
            assert vocabulary.decode(tokens_KT[0].tolist()[1:]) == f"a {colour} square"
            assert tokens_KT[1].sum() == 0
            seen.add(int(image_id))
    assert seen == {image_id_of(f"{tar}/{key:03}") for tar in tars for key in range(6)}


def test_ranks_starts_and_workers_draw_differently_and_a_seed_the_same(tars):
    def drawn(**options):
        return [batch.image_ids.tolist() for batch in take(3, tars, **options)]

    assert drawn() == drawn()
    different = [drawn(), drawn(rank=1), drawn(start=5)]
    assert all(different.count(one) == 1 for one in different)


@pytest.mark.parametrize(("caption", "mirrors"), [(b"a dog on the left", False), (b"a dog", True)])
def test_a_picture_whose_caption_says_left_is_not_mirrored(tmp_path, caption, mirrors):
    data = io.BytesIO()
    Image.linear_gradient("L").rotate(90).convert("RGB").save(data, "JPEG")  # darkest on its left
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": data.getvalue(), "0.txt": caption})
    lighter = [
        (batch.images_BCHW[:, 0, 8, 2] > batch.images_BCHW[:, 0, 8, -3]) for batch in take(4, [tar], augment="safe")
    ]
    assert any(mirrored.any() for mirrored in lighter) == mirrors


def test_what_is_damaged_is_named_and_left_out(tars, tmp_path, capfd):
    huge = Image.new("1", (30_000, 30_000))
    data = io.BytesIO()
    huge.save(data, "PNG")
    members = {"0.jpg": b"no image", "0.txt": b"a", "1.jpg": picture("red"), "2.txt": b"a"}
    members |= {"3.jpg": picture("red"), "3.txt": b"   ", "4.png": data.getvalue(), "4.txt": b"a"}
    members |= {"5.jpg": picture("red"), "5.pkl": b"cos\nsystem\n", "6.jpg": picture("red"), "6.txt": b"a red square"}
    odd = write_tar(tmp_path / "odd.tar", members)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(Path(tars[0]).read_bytes()[:9000])
    (batch,) = take(1, [odd, str(cut)])
    good = {image_id_of(f"{odd}/6"), *(image_id_of(f"{cut}/{key:03}") for key in range(6))}
    assert set(batch.image_ids.tolist()) <= good
    told = capfd.readouterr().err
    for reason in ("not an image", "without captions", "without an image", "pixels", "or what is left of it"):
        assert reason in told, reason


def test_a_stream_of_nothing_ends_with_its_reason(tmp_path):
    empty = tmp_path / "no.tar"
    empty.write_bytes(b"this is no tar" * 99)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"10 tars in a row could not be read, the last was .*no\.tar"):
            take(1, [str(empty)], workers)


def test_a_pipe_runs_only_where_it_was_asked_for(tars, tmp_path):
    proof = tmp_path / "proof"
    pipe = f"pipe:touch {proof}; cat {tars[0]}"
    assert expand([pipe], others=("pipe:",)) == [pipe]
    with pytest.raises(UserError, match=r"would run a command.*data\.pipes=true"):
        loader([pipe])
    assert not proof.exists()
    (batch,) = take(1, [pipe], pipes=True)
    assert proof.exists() and batch.images_BCHW[:, 0].float().mean() > 200


def test_a_pipe_that_fails_is_no_silent_end(tars):
    with pytest.raises(UserError, match="exit code 3"):
        take(1, ["pipe:exit 3"], pipes=True)


def test_tars_come_from_an_address(tars, tmp_path):
    (batch,) = take(1, [f"file://{tars[1]}"])
    assert batch.images_BCHW[:, 2].float().mean() > 200


def test_a_checkpoint_says_that_its_order_was_not_exact():
    plan = StreamPlan(3, ("a.tar",), 100, 8)
    state = plan.state(40)
    assert state["exact"] is False and state["epoch"] == 40 // 13  # 100 images in steps of 8
    plan.check_state(state)
    for other in ({"step": 40, "manifest_sha256": "x", "global_batch": 8}, state | {"global_batch": 4}):
        with pytest.raises(UserError, match=r"another train\.global_batch"):
            plan.check_state(other)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stream_takes_of_a_tar_what_an_index_takes(tmp_path, case):
    tar = str(case.write(tmp_path / "x.tar"))
    if case.samples:
        drawn = {image_id for batch in take(5, [tar]) for image_id in batch.image_ids.tolist()}
        assert drawn == {image_id_of(f"{tar}/{key}") for key in case.samples}
    else:
        with pytest.raises(UserError, match="could not be read" if case.damaged else r"no sample of .*x\.tar has"):
            take(1, [tar])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_without_a_sample_ends_after_one_pass(tmp_path, capfd, workers):
    tars = [write_tar(tmp_path / f"{n}.tar", {"0.jpg": picture("red"), "0.cls": b"3"}) for n in range(4)]
    with pytest.raises(UserError) as ended:
        take(1, tars, workers)
    assert "no sample of 4 tars such as" in str(ended.value) and "suffixes met are .cls, .jpg" in str(ended.value)
    assert "4 × image without captions (beside it: .cls)" in str(ended.value) and "\n" not in str(ended.value)
    assert capfd.readouterr().err.count("skipped") <= 4 * max(workers, 1)


def test_pictures_that_turn_out_to_be_broken_are_named_once_and_end_a_stream_of_nothing_else(tmp_path, capfd):
    data = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(data, "JPEG")
    cut = data.getvalue()[: len(data.getvalue()) // 2]
    members = {f"{key}.{kind}": data for key in "abcde" for kind, data in (("jpg", cut), ("txt", b"a red square"))}
    tar = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(UserError, match="no sample of"):
        take(1, [tar])
    told = capfd.readouterr().err
    assert told.count("skipped: sample") == 3 and "and so are others of this tar" in told


def test_a_tar_without_samples_is_read_once_among_others(tars, tmp_path, capfd):
    odd = write_tar(tmp_path / "odd.tar", {"0.jpg": picture("red"), "1.jpg": picture("red")})
    assert len(take(9, [odd, tars[0]])) == 9
    assert capfd.readouterr().err.count("2 × image without captions, in") == 1


@pytest.mark.parametrize(("suffix", "packed_by"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)], ids=["gz", "bz2", "xz"])
def test_compressed_tars_are_unpacked_on_the_way(tars, tmp_path, suffix, packed_by, capfd):
    packed = tmp_path / f"blue.tar.{suffix}"
    packed.write_bytes(packed_by.compress(Path(tars[1]).read_bytes()))
    for tar in (str(packed), f"file://{packed}", f"pipe:cat {packed}"):
        (batch,) = take(1, [tar], pipes=True)
        assert batch.images_BCHW[:, 2].float().mean() > 200
    assert "skipped" not in capfd.readouterr().err
    packed.write_bytes(packed.read_bytes()[:-20])
    assert len(take(1, [str(packed), tars[0]])) == 1


def test_a_tar_that_is_packed_otherwise_is_refused_with_what_unpacks_it(tmp_path):
    packed = tmp_path / "x.tar.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99))
    with pytest.raises(UserError, match=r"unpack it with: zstd -d .*x\.tar\.zst"):
        take(1, [str(packed)])


def test_a_tar_with_a_damaged_end_still_gives_what_is_whole(tars, tmp_path, capfd):
    cut = tmp_path / "cut.tar"
    cut.write_bytes(Path(tars[0]).read_bytes()[:9000])
    assert len(take(20, [str(cut)])) == 20
    assert capfd.readouterr().err.count("or what is left of it") == 1
