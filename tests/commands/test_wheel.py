"""The wheel holds all that the commands need, and works in an empty folder, far from any checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

from imgcap.export.artefact import export_run

CHECKOUT = Path(__file__).parents[2]
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird"]
SOURCES = ["setup.py", "pyproject.toml", "README.md", "LICENSE"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel that was built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(CHECKOUT / name, folder)
    for name in ("imgcap", "configs"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    subprocess.run([sys.executable, "-m", *build], cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "out").glob("imgcap-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture
def start(unpacked: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `imgcap` of the wheel in an empty folder."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
        (tmp_path / "empty").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "imgcap", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)

    return run


def test_it_holds_what_is_no_python(unpacked: Path) -> None:
    package, ours = unpacked / "imgcap", CHECKOUT / "imgcap"
    data = [path.relative_to(ours) for suffix in ("yaml", "html") for path in ours.rglob(f"*.{suffix}")]
    assert Path("files/datasets.yaml") in data
    for path in data:
        assert (package / path).read_bytes() == (ours / path).read_bytes()
    for config in (CHECKOUT / "configs").glob("*.yaml"):
        assert (package / "configs" / config.name).read_bytes() == config.read_bytes()
    (points,) = unpacked.glob("imgcap-*.dist-info/entry_points.txt")
    assert "imgcap = imgcap.commands.main:main" in points.read_text()
    code = {path.relative_to(ours) for path in ours.rglob("*.py")}
    assert code == {path.relative_to(package) for path in package.rglob("*.py")}


@pytest.mark.exhaustive
def test_it_needs_no_checkout(start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert start("--help").stdout.startswith("usage: imgcap COMMAND")
    assert "name: flickr8k\n" in start("config", "flickr8k").stdout
    (tmp_path / "own.yaml").write_text("name: own")
    assert "name: own\n" in start("config", tmp_path / "own.yaml").stdout
    assert "choose one of flickr8k, flickr30k" in start("download", "mnist", "--out", "raw").stderr
    refused = start("train")
    assert refused.returncode == 2 and "there is no shard folder shards/demo" in refused.stderr, "it is the demo's"

    run = save_run(tmp_path / "run", WORDS, "data={image_size: 32, max_tokens: 5}")
    export_run(run, tmp_path / "artefact")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    ended = start("caption", tmp_path / "artefact", tmp_path / "photo.jpg")
    assert ended.returncode == 0 and ended.stdout.startswith(f"{tmp_path / 'photo.jpg'}\t"), ended.stderr
