"""Pictures and tars with something wrong in one place: the others are as ever, and each has its own caption."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import Changed, changed_bytes, fuzz, run_command
from photos import draw_photo

import imgcap.commands.index
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader

FORMS = [".jpg", ".png", ".webp", ".gif", ".tiff", ".bmp"]
TEXTS = [f"A photo of {word} ." for word in ("zero", "one", "two", "three", "four", "five")]


@pytest.mark.parametrize("suffix", FORMS)
def test_a_picture_with_something_wrong(suffix: str, tmp_path: Path, built: Callable[..., Any]) -> None:
    folder = tmp_path / "photos"
    for number, text in enumerate(TEXTS[:3]):
        draw_photo(folder / f"{number}{suffix}", 24, 16, seed=number)
        (folder / f"{number}.txt").write_text(text)
    path = folder / f"1{suffix}"

    def build(changed: Changed) -> None:
        path.write_bytes(changed.data)
        ended, captions = built("folder", folder, "--val", 0, "--test", 0)
        assert ended.code == 0, ended
        assert [captions.get(f"{number}{suffix}") for number in (0, 2)] == [[TEXTS[0]], [TEXTS[2]]]
        assert captions.get(path.name, [TEXTS[1]]) == [TEXTS[1]]
        assert (path.name in captions) != ("" in captions)  # one or the other

    fuzz(f"picture {suffix}", changed_bytes(path.read_bytes()), build)


def test_a_tar_with_something_wrong(photos: Path, tmp_path: Path) -> None:
    pictures, path = [(photos / f"{number}.jpg").read_bytes() for number in range(len(TEXTS))], tmp_path / "some.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, text in enumerate(TEXTS):
            for suffix, data in ((".jpg", pictures[number]), (".txt", text.encode())):
                member = tarfile.TarInfo(f"{number}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    original = path.read_bytes()

    def index(changed: Changed) -> None:
        path.write_bytes(changed.data)
        out = tmp_path / "set"
        ended = run_command(imgcap.commands.index.main, path, "--out", out, "--split", "train", "--workers", 1)
        if ended.code == 0:
            reader, found = ShardReader(out, "train"), 0
            for sample in map(reader.read, range(len(reader))):
                found += len(sample.captions)
                wrong = [
                    text for text in sample.captions if text in TEXTS and sample.jpeg != pictures[TEXTS.index(text)]
                ]
                touched = any(picture[:40] in sample.jpeg or sample.jpeg[-40:] in picture for picture in pictures)
                assert not wrong or (touched and sample.jpeg not in pictures), wrong
            found += sum(names.count for names in Manifest.load(out).skipped.values())
            assert found >= len(TEXTS) - 2 or changed.end > len(original) - 1, found
        for left in sorted(out.rglob("*"), reverse=True) if out.exists() else ():
            left.unlink() if left.is_file() else left.rmdir()

    fuzz("tar", changed_bytes(original), index)
