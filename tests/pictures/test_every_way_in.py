"""The same file by every way in: the same pixels come to the model, or the same reason is told."""

import io
import json
import os
import re
import runpy
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from html import unescape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from PIL import Image
from sorts import SORTS
from torch import Tensor
from untrained import save_run

import imgcap
from imgcap.captioning.captioner import PictureCaptioner
from imgcap.captioning.inputs import FolderInputs
from imgcap.captioning.page.server import Limits, Page
from imgcap.commands import caption as command
from imgcap.data.dataset import DAMAGED, EvalDataset
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.pictures.opening import on_one_line
from imgcap.shards.builder import build
from imgcap.shards.foreign import index_foreign
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader
from imgcap.shards.sample import SampleEncoder
from imgcap.shards.source import Source
from imgcap.types import Record

pytest.importorskip("onnxruntime")
from imgcap.export.graphs import write_runner
from imgcap.export.onnx_runner import OnnxCaptioner

SIDE, QUALITY = 32, 95
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]
Answers: TypeAlias = dict[str, np.ndarray | str]  # of each file the (H, W, 3) pixels that a model saw, or the reason


class Words:
    """Cuts captions at spaces."""

    name = "at spaces"

    def __call__(self, caption: str) -> list[str]:
        return caption.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, sort in SORTS.items():
        (folder / name).write_bytes(sort.data())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = f"data={{image_size: {SIDE}, max_tokens: 3, workers: 0}}"
    return save_run(tmp_path_factory.mktemp("run") / "run", WORDS, data, "eval={beam: 1, batch: 8}")


@pytest.fixture(scope="module")
def captioner(run: Path) -> PictureCaptioner:
    return imgcap.load(run, "cpu")


@contextmanager
def looking() -> Iterator[list[np.ndarray]]:
    """Note every picture that a model is given to encode."""
    seen: list[np.ndarray] = []
    encode = Captioner.encode

    def noting(captioner: Captioner, images_BCHW: Tensor) -> Tensor:
        seen.extend(images_BCHW.permute(0, 2, 3, 1).numpy())
        return encode(captioner, images_BCHW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Captioner, "encode", noting)
        yield seen


def called(*arguments: object) -> tuple[str, str]:
    """Run `imgcap caption` in this process; returns stdout and stderr."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", ["imgcap caption", *map(str, arguments)])
        command.run(command.parse())
    return out.getvalue(), err.getvalue()


def told(lines: str) -> dict[str, str]:
    """Reasons by what stands between `skipped: ` and them."""
    return dict(re.findall(r"^skipped: (.+?): (.+)$", lines, re.MULTILINE))


def by_caption(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    paths = [folder / name for name in SORTS]
    with looking() as seen:
        lines, skipped = called(captioner.loaded.path, *paths, "--json", "--device", "cpu")
    captioned = [os.path.basename(entry["image"]) for entry in json.loads(lines)]
    named = {on_one_line(path): path.name for path in paths}
    reasons = {named[name]: reason for name, reason in told(skipped).items()}
    return {**dict(zip(captioned, seen, strict=True)), **reasons}


def by_folder(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    with looking() as seen:
        called(captioner.loaded.path, folder, "--out", out / "captions.jsonl", "--device", "cpu")
    captioned = [json.loads(line)["image"] for line in (out / "captions.jsonl").read_text().splitlines()]
    reasons = json.loads((out / "captions.jsonl.summary.json").read_text())["skipped"]
    return {**dict(zip(captioned, seen, strict=True)), **reasons}


def by_load(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    return _one_by_one(captioner, {name: folder / name for name in SORTS})


def by_bytes(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    return _one_by_one(captioner, {name: (folder / name).read_bytes() for name in SORTS})


def by_pillow(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    """Pictures as a user opens them; a large JPEG isn't decoded smaller, and what Pillow can't open is left out."""
    opened = {}
    for name in SORTS:
        try:
            opened[name] = Image.open(folder / name)
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue
    return _one_by_one(captioner, {name: image for name, image in opened.items() if name != "large.jpg"})


def _one_by_one(captioner: PictureCaptioner, pictures: dict[str, Any]) -> Answers:
    answers: Answers = {}
    for name, picture in pictures.items():
        with looking() as seen:
            try:
                captioner.caption(picture)
                (answers[name],) = seen
            except UserError as error:
                answers[name] = str(error).rpartition("can't be captioned: ")[2]
    return answers


def by_page(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    page, answers = Page({"model": captioner}, Limits(megapixels=89)), Answers()
    for name in SORTS:
        with looking() as seen:
            answer = page.answer(str(folder / name), {})
        refused = re.search(r'class="refused".*?>(.*?)</p>', answer, re.DOTALL)
        reason = unescape(refused[1]).rpartition("can't be captioned: ")[2] if refused else ""
        answers[name] = reason.replace("89,000,000", "89,478,485") or seen[0]  # its limit is in whole megapixels
    return answers


def by_onnx(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    """What the program that lies beside the graphs prepares for them, with the modules that lie there."""
    write_runner(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(out)
        program = runpy.run_path(str(out / "caption.py"))
        assert program["open_picture"].__module__ == "opening"
    runner = program["OnnxCaptioner"].__new__(program["OnnxCaptioner"])
    runner.config, answers = {"data": {"image_size": SIDE}}, Answers()
    for name in SORTS:
        try:
            answers[name] = runner.prepare(folder / name)
        except program["UnreadableImage"] as reason:
            answers[name] = str(reason)
    return answers


def by_build(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    records = [Record(number, name, folder / name, ("a dog",)) for number, name in enumerate(SORTS)]
    manifest = build(Source("sorts", {"test": records}, []), out / "set", Words(), quality=QUALITY)
    return {**_skipped(manifest), **_read(out / "set", captioner, str)}


def by_index(folder: Path, captioner: PictureCaptioner, out: Path) -> Answers:
    _write_tar(folder, out / "sorts.tar")
    manifest = index_foreign([str(out / "sorts.tar")], out / "set", Words(), split="test")
    numbers = dict(enumerate(SORTS))
    reasons = {numbers[_number(name)]: reason for name, reason in _skipped(manifest).items()}
    return {**reasons, **_read(out / "set", captioner, lambda name: numbers[_number(name)])}


def _write_tar(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(SORTS):
            for suffix, data in (("jpg", (folder / name).read_bytes()), ("txt", b"a dog")):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])


def _skipped(manifest: Manifest) -> dict[str, str]:
    return {name: reason for reason, names in manifest.skipped.items() for name in names.names}


def _read(shards: Path, captioner: PictureCaptioner, name_of: Callable[[str], str]) -> Answers:
    """What an evaluation gives its model of a set."""
    reader, answers = ShardReader(shards, "test"), Answers()
    dataset = EvalDataset(reader, captioner.loaded.vocabulary, captioner.loaded.config.data)
    for i in range(len(dataset)):
        try:
            answer: np.ndarray | str = dataset[i][0].permute(1, 2, 0).numpy()
        except DAMAGED as error:
            answer = str(error)
        answers[name_of(reader.read_text(i).file_name)] = answer
    return answers


WAYS = {
    "caption": by_caption,
    "folder": by_folder,
    "load": by_load,
    "bytes": by_bytes,
    "Pillow": by_pillow,
    "page": by_page,
    "ONNX": by_onnx,
    "build": by_build,
    "index": by_index,
}


@pytest.fixture(scope="module")
def answers(folder: Path, captioner: PictureCaptioner, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answers]:
    return {way: answer(folder, captioner, tmp_path_factory.mktemp(way)) for way, answer in WAYS.items()}


def squeezed(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(int) - right).mean())


@pytest.mark.parametrize("name", SORTS)
def test_every_way_gives_the_same_pixels_or_the_same_reason(answers: dict[str, Answers], name: str) -> None:
    sort = SORTS[name]
    of_all = {way: found[name] for way, found in answers.items() if way != "Pillow" or name in found}
    expected = of_all["load"]
    if sort.shows is None:
        assert isinstance(expected, str) and expected.startswith(sort.reason)
        assert of_all == dict.fromkeys(of_all, expected)
        return
    assert difference(squeezed(sort.shows()), expected) < 6
    for way, found in of_all.items():
        if way == "build" and not _keeps_its_bytes(sort.data()):  # it has become a JPEG meanwhile
            assert difference(found, expected) < 6
        else:
            assert np.array_equal(found, expected), (way, found if isinstance(found, str) else "other pixels")


def _keeps_its_bytes(data: bytes) -> bool:
    if not data.startswith(b"\xff\xd8"):
        return False
    with Image.open(io.BytesIO(data)) as image:
        return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere.jpg", "No such file or directory"), ("folder.jpg", "Is a directory")]
)
def test_files_that_cannot_be_read_have_one_reason_too(
    captioner: PictureCaptioner, tmp_path: Path, name: str, reason: str
) -> None:
    """A link that leads nowhere, and a folder that is called like a picture."""
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    runner = OnnxCaptioner.__new__(OnnxCaptioner)
    runner.config = {"data": {"image_size": SIDE}}
    said = [sample.reason for sample in SampleEncoder(Words(), None, QUALITY)(_record(tmp_path / name)).skipped]
    for ask in (captioner.caption, runner.prepare):
        with pytest.raises((UserError, ValueError)) as told:
            ask(tmp_path / name)
        said.append(str(told.value).rpartition("can't be captioned: ")[2])
    said.append(FolderInputs(tmp_path, [name]).read(0, SIDE).reason)
    assert set(said) == {f"cannot be read: {reason}"}


def _record(path: Path) -> Record:
    return Record(1, path.name, path, ("a dog",))
