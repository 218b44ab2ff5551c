"""Bad input on the real commands: skipped, counted and named, or one line and exit code 2."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader

ROOT = Path(__file__).parents[2]
SIZE = (48, 32)
Command = Callable[..., Any]


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(SIZE, Image.Resampling.BILINEAR)


def save_odd_photos(folder: Path) -> list[str]:
    """Pictures that need care and are sound. As keys of a tar, the two names with dots would merge into one sample."""
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(20).save(folder / "dots.0.jpg")
    photo(21).save(folder / "dots.1.jpg")
    photo(22).convert("CMYK").save(folder / "cmyk.jpg")
    photo(23).convert("L").save(folder / "grey.jpg")
    photo(24).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=turned)
    photo(25).save(folder / "drawing.png")
    photo(26).save(folder / "a-png.jpg", format="PNG")
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Flickr8k folder with a bit of everything: 15 sound photos for training, two for validation."""
    root = tmp_path_factory.mktemp("messy")
    images = root / "Images"
    images.mkdir()
    odd = save_odd_photos(images)
    for number in range(10):
        photo(number).save(images / f"{number}.jpg")
    photo(30).save(images / "lonely.jpg")
    (images / "half.jpg").write_bytes((images / "0.jpg").read_bytes()[:400])
    (images / "zero.jpg").touch()
    captioned = [*(f"{number}.jpg" for number in range(10)), *odd, "half.jpg", "zero.jpg", "ghost.jpg"]
    rows = [f"{name},A {word} of {name[0]} ." for name in captioned for word in ("picture", "photo")]
    rows += ["0.jpg,", "silent.jpg, "]
    (root / "captions.txt").write_text("\n".join(["image,caption", *rows]) + "\n")
    (root / "Flickr_8k.devImages.txt").write_text("8.jpg\n9.jpg\n")
    train = [name for name in [*captioned, "silent.jpg"] if name not in ("8.jpg", "9.jpg")]
    (root / "Flickr_8k.trainImages.txt").write_text("\n".join(train) + "\n")
    photo(31).save(images / "silent.jpg")
    return root


def sources(folder: Path) -> list[object]:
    return ["flickr8k", "--images", folder / "Images", "--captions", folder / "captions.txt", "--workers", 1]


@pytest.fixture(scope="module")
def built(messy: Path) -> subprocess.CompletedProcess[str]:
    """The build of the messy folder into its `shards`, in a process of its own."""
    arguments = [*map(str, sources(messy)), "--out", str(messy / "shards")]
    command = [sys.executable, "tools/build_shards.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def shards(built: subprocess.CompletedProcess[str], messy: Path) -> Path:
    assert built.returncode == 0, built.stderr
    return messy / "shards"


def test_a_messy_dataset_is_built_and_its_faults_are_counted_and_named(
    built: subprocess.CompletedProcess[str], messy: Path, command: Command
) -> None:
    assert built.returncode == 0, built.stderr
    assert [line.strip() for line in built.stdout.splitlines() if "skipped" in line] == [
        "skipped: 1 × captions without an image (the first: 'ghost.jpg')",
        "skipped: 2 × empty caption (the first: '0.jpg', captions.txt line 42)",
        "skipped: 2 × image without captions (the first: 'silent.jpg')",
        "skipped: 1 × truncated or damaged image (the first: 'half.jpg')",
        "skipped: 1 × zero bytes (the first: 'zero.jpg')",
    ]
    assert "train: 15 images, 30 captions" in built.stdout and "val: 2 images, 4 captions" in built.stdout
    skipped = Manifest.load(messy / "shards").skipped
    assert skipped["image without captions"].names == ("silent.jpg", "lonely.jpg")
    verified = command("tools/verify_shards.py", messy / "shards", "--decode")
    assert verified.returncode == 0
    assert [" ".join(line.split()) for line in verified.stdout.splitlines()[2:8]] == [
        "count left out when it was made the first 3",
        "2 empty caption 0.jpg (captions.txt line 42), silent.jpg (captions.txt line 43)",
        "2 image without captions silent.jpg, lonely.jpg",
        "1 captions without an image ghost.jpg",
        "1 truncated or damaged image half.jpg",
        "1 zero bytes zero.jpg",
    ]
    told = json.loads(command("tools/verify_shards.py", messy / "shards", "--json").stdout)
    assert told["skipped"]["image without captions"] == {"count": 2, "examples": ["silent.jpg", "lonely.jpg"]}
    looked = command("imgcap", "inspect", messy / "shards", "--out", messy / "look")
    assert "\n    1  zero bytes " in looked.stdout
    assert json.loads((messy / "look" / "report.json").read_text())["skipped"] == told["skipped"]


def test_every_sound_photo_is_an_upright_rgb_jpeg_of_its_own(shards: Path, messy: Path) -> None:
    reader = ShardReader(shards, "train")
    samples = {sample.file_name: sample for sample in map(reader.read, range(len(reader)))}
    assert {"dots.0.jpg", "dots.1.jpg", "cmyk.jpg", "grey.jpg", "turned.jpg", "drawing.png", "a-png.jpg"} < set(samples)
    assert len({sample.image_id for sample in samples.values()}) == len(samples) == 15
    for name, sample in samples.items():
        with Image.open(io.BytesIO(sample.jpeg)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE), name
        assert all(caption.endswith(f"of {name[0]} .") for caption in sample.captions)
    plain = list(webdataset.WebDataset([str(shards / "train-00000.tar")], shardshuffle=False))
    assert [json.loads(sample["json"])["file_name"] for sample in plain] == list(samples)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of training on the messy dataset, and an evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "messy"
    settings = ["data={image_size: 32, workers: 0}", "model.encoder={name: resnet18, weights: none}"]
    settings += ["model.decoder={embed_dim: 16, hidden_dim: 24, attention_dim: 16}", "log={tensorboard: false}"]
    settings += ["train={global_batch: 15, max_steps: 1}", "eval={beam: 2, metrics: [BLEU]}"]
    command = [sys.executable, "launch/train.py", "--config", os.devnull, *settings]
    command += [f"data.shards={shards}", f"run_dir={folder}"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0 and "skipped" not in process.stderr, process.stderr
    return folder


def test_training_sees_every_sound_photo(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/images"] for line in lines] == [15]


def train(command: Command, tiny: list[str], *arguments: object) -> Any:
    return command("launch/train.py", "--config", os.devnull, *tiny, *arguments)


# ------------------------------------------------------------------------------------------ one line


@pytest.mark.parametrize(
    ("script", "arguments", "complaint"),
    [
        ("tools/build_shards.py", ["--images", "NOWHERE"], "there is no folder NOWHERE"),
        ("tools/build_shards.py", ["--images", "EMPTY"], "none of the 21 captioned images lies in EMPTY"),
        ("tools/build_shards.py", ["--splits", "NOWHERE"], "there is no NOWHERE"),
        ("tools/verify_shards.py", ["NOWHERE"], "there is no shard folder NOWHERE"),
        ("launch/train.py", ["data.shards=NOWHERE"], "there is no shard folder NOWHERE"),
        ("launch/train.py", ["--resume", "NOWHERE"], "no checkpoint folder NOWHERE"),
        ("launch/train.py", ["--config", "NOWHERE"], "no configuration file NOWHERE"),
        ("launch/train.py", ["optim.learning_rte=1"], "unknown key optim.learning_rte"),
        ("launch/train.py", ["train.gloabl_batch=8"], "the nearest valid one is train.global_batch"),
        ("launch/train.py", ["model.encoder.name=resnet19"], "resnet1"),
        ("launch/train.py", ["model.encoder.weights=NOWHERE"], "NOWHERE"),
        ("launch/train.py", ["data.language=de"], "tokenised as language 'en'"),
        ("launch/train.py", ["eval.split=test"], "has no split 'test'"),
        ("launch/train.py", ["train.micro_batch=3"], "train.micro_batch=3 does not divide"),
        ("launch/train.py", ["vocab.size=3"], "vocab.size is 3"),
        ("launch/train.py", ["run_dir=FILE"], "FILE"),
        ("launch/evaluate.py", ["NOWHERE"], "NOWHERE is no run and no artefact"),
        ("launch/evaluate.py", ["EMPTY"], "EMPTY is no run and no artefact"),
        ("launch/evaluate.py", ["RUN", "--split", "test"], "has no split 'test'; it has train, val"),
        ("launch/evaluate.py", ["RUN", "data.shards=NOWHERE", "--split", "val"], "there is no shard folder NOWHERE"),
        ("tools/caption.py", ["NOWHERE", "PHOTO"], "NOWHERE is no run and no artefact"),
        ("tools/score.py", ["--results", "NOWHERE", "--facts"], "there is no file NOWHERE"),
        ("tools/score.py", ["--results", "NOWHERE", "--references", "NOWHERE"], "there is no file NOWHERE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(
    command: Command,
    tiny: list[str],
    messy: Path,
    shards: Path,
    run: Path,
    tmp_path: Path,
    script: str,
    arguments: list[str],
    complaint: str,
) -> None:
    places = {"NOWHERE": tmp_path / "nowhere", "EMPTY": tmp_path / "empty", "FILE": tmp_path / "file", "RUN": run}
    places["PHOTO"] = messy / "Images" / "0.jpg"
    places["EMPTY"].mkdir()
    places["FILE"].write_text("here already")

    def placed(text: str) -> str:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    before = {
        "tools/build_shards.py": [*sources(messy), "--out", tmp_path / "set"],
        "launch/train.py": ["--config", os.devnull, *tiny, f"data.shards={shards}", f"run_dir={tmp_path / 'run'}"],
    }.get(script, [])
    assert placed(complaint) in command(script, *before, *map(placed, arguments)).mistake
    assert not (tmp_path / "set").exists() and not (tmp_path / "run" / "checkpoints").exists()


def test_captions_that_are_not_utf8_are_one_line(command: Command, messy: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_bytes("image,caption\n0.jpg,A café .\n".encode("latin1"))
    mistake = command(
        "tools/build_shards.py", *sources(messy), "--captions", captions, "--out", tmp_path / "set"
    ).mistake
    assert "is not UTF-8: byte 0xe9" in mistake and "line 2" in mistake and "iconv -f LATIN1" in mistake


def test_two_images_of_one_id_are_one_line(command: Command, messy: Path, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}]
    captions = tmp_path / "captions_train2017.json"
    captions.write_text(json.dumps({"images": images, "annotations": [{"image_id": 1, "caption": "A dog ."}]}))
    arguments = ["coco", "--images", messy / "Images", "--captions", captions, "--out", tmp_path / "set"]
    assert "gives image id 1 to both 0.jpg and 1.jpg" in command("tools/build_shards.py", *arguments).mistake


def test_images_none_of_which_can_be_read_are_one_line(command: Command, messy: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("image,caption\nhalf.jpg,A dog .\nzero.jpg,A cat .\n")
    mistake = command(
        "tools/build_shards.py", *sources(messy), "--captions", captions, "--out", tmp_path / "set"
    ).mistake
    assert "no image is left" in mistake and "1 × zero bytes" in mistake and "1 × truncated" in mistake


@pytest.mark.dist
@pytest.mark.slow
def test_a_batch_that_three_ranks_cannot_share_is_told_once(shards: Path, tiny: list[str], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    arguments = ["launch/train.py", "--config", os.devnull, *tiny, f"data.shards={shards}", f"run_dir={tmp_path}/run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run([*torchrun, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 1  # torchrun's own, whatever its processes return
    told = [line for line in process.stderr.splitlines() if "global_batch" in line]
    assert told == [
        "error: train.global_batch=8 can't be shared equally by 3 ranks; the nearest that can is 9",
    ]
    assert process.stderr.count("Traceback") == 1, "torchrun's own, and none of a rank"
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_one_line(launch: Callable[..., Any], tmp_path: Path) -> None:
    """In a process of its own: a rank of several leaves at once, and would take this one along."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        several = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ended = launch(tmp_path / "run", extra=several)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: ") and port in last and "--master_port" in last


def test_a_vocabulary_that_does_not_fit_the_checkpoint_is_one_line(
    command: Command, run: Path, messy: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    again = ["launch/train.py", "--config", copy / "config.yaml", f"run_dir={copy}", "vocab.min_count=3"]
    assert "vocab.min_count 1 -> 3" in command(*again).mistake
    resumed = command(*again, "--change", "vocab.min_count")
    assert "the vocabulary of" in resumed.mistake and f"{copy}/vocab.json" in resumed.mistake
    vocabulary = json.loads((run / "vocab.json").read_text())
    assert json.loads((copy / "vocab.json").read_text()) == vocabulary, "a refused resume has changed the run"
    words = vocabulary["words"]
    (copy / "vocab.json").write_text(json.dumps(vocabulary | {"words": [*words, "zebra"]}))
    for script, *arguments in (("launch/evaluate.py", "--split", "val"), ("tools/caption.py", messy / "Images/0.jpg")):
        mistake = command(script, copy, *arguments).mistake
        assert f"vocab.json has {len(words) + 1} entries and the model was trained with {len(words)}" in mistake


# ----------------------------------------------------------------------------------------- full disk


@pytest.fixture
def full_disk(small_disk: Callable[[str], Path]) -> Path:
    return small_disk("1m")


def leave(free: int, disk: Path) -> None:
    """Fill the disk up to `free` bytes."""
    (disk / "ballast").unlink(missing_ok=True)
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - free))


@pytest.mark.parametrize("free_kib", [0, 64])
def test_a_full_disk_ends_a_build_with_one_line(command: Command, full_disk: Path, messy: Path, free_kib: int) -> None:
    leave(free_kib * 1024, full_disk)
    drawn = command("tools/build_shards.py", "demo", "--limit", 60, "--workers", 1, "--out", full_disk / "demo")
    assert "no room left" in drawn.mistake
    shutil.rmtree(full_disk / "demo-raw", ignore_errors=True)
    leave(free_kib * 256, full_disk)
    copied = command("tools/build_shards.py", *sources(messy), "--out", full_disk / "set")
    assert "no room left to write" in copied.mistake


@pytest.mark.slow
def test_a_full_disk_ends_training_with_one_line_wherever_it_is_met(
    command: Command, tiny: list[str], full_disk: Path, shards: Path
) -> None:
    arguments = [f"data.shards={shards}", f"run_dir={full_disk / 'run'}"]
    reached = []
    for free_kib in (0, 4, 8, 12, 20, 40, 200, 700):  # each is enough for a few files more
        leave(free_kib * 1024, full_disk)
        for tensorboard in ("false", "true"):
            mistake = train(command, tiny, *arguments, f"log.tensorboard={tensorboard}").mistake
            assert "no room left" in mistake or "disk full" in mistake
        reached.append(len(list((full_disk / "run").rglob("*.*"))))
        shutil.rmtree(full_disk / "run")
    assert reached[0] < reached[-1]
    (full_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=128m", full_disk], check=True)
    ended = train(command, tiny, *arguments)
    assert ended.returncode == 0, ended.stderr
    leave(0, full_disk)
    scored = command("launch/evaluate.py", full_disk / "run", "--split", "val", "eval.batch=2")
    assert "no room left" in scored.mistake
    assert train(command, tiny, *arguments, "train.max_steps=2").returncode == 2
    (full_disk / "ballast").unlink()
    assert command("launch/evaluate.py", full_disk / "run", "--split", "val").returncode == 0
