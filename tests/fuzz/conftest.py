"""A folder of six small photos, and sets that are built of them again and again."""

import functools
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from fuzzing import CASES, Outcome, run_command
from photos import draw_photo

import imgcap.commands.build
import imgcap.text.tokeniser
from imgcap.shards.manifest import Manifest
from imgcap.shards.reader import ShardReader

PHOTOS = 6
PIPELINE = functools.cache(imgcap.text.tokeniser._blank_pipeline)  # built once, not with each set


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    CASES.update(item.nodeid.partition("[")[0] for item in items)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "photos"
    for number in range(PHOTOS):
        draw_photo(folder / f"{number}.jpg", 24, 16, seed=number)
    return folder


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, dict[str, list[str]]]]:
    """Build a set; return how that ended, and the captions of each picture in it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nobody cuts the power here
    monkeypatch.setattr(imgcap.text.tokeniser, "_blank_pipeline", PIPELINE)
    numbers = count()

    def build(*arguments: object, command: Callable[[], None] = imgcap.commands.build.main) -> tuple[Outcome, dict]:
        out = tmp_path / f"set-{next(numbers)}"
        ended = run_command(command, *arguments, "--out", out, "--workers", 1)
        captions: dict[str, list[str]] = {}
        if ended.code == 0:
            manifest = Manifest.load(out)
            for split in manifest.splits:
                reader = ShardReader(out, split)
                captions |= {sample.file_name: sample.captions for sample in map(reader.read_text, range(len(reader)))}
            for reason, names in manifest.skipped.items():
                assert reason and names.count == len(names.names) and all(names.names)
                captions.setdefault("", []).extend([reason] * names.count)
        shutil.rmtree(out, ignore_errors=True)
        return ended, captions

    return build
