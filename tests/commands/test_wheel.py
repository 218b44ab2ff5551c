"""The wheel holds all that the commands need, and works in an empty folder, far from any checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from untrained import save_run

import imgcap
from imgcap.errors import _INSTALLED_AS
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
    for name in ("imgcap", "configs", "launch"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    subprocess.run([sys.executable, "-m", *build], cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "out").glob("imgcap-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    (written,) = unpacked.glob("imgcap-*.dist-info/METADATA")
    return Parser().parsestr(written.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def requirements(metadata: Message) -> dict[str, set[str]]:
    """What the plain install (\"\") and each extra ask for, as `name>=version`."""
    asked: dict[str, set[str]] = {name: set() for name in ["", *metadata.get_all("Provides-Extra", [])]}
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        extra = re.search(r"extra == ['\"](.+?)['\"]", line)
        asked[extra[1] if extra else ""].add(f"{requirement.name}{requirement.specifier}")
    return asked


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
    data = [path.relative_to(ours) for suffix in ("yaml", "html", "ttf", "typed") for path in ours.rglob(f"*.{suffix}")]
    assert {Path("files/datasets.yaml"), Path("py.typed"), Path("pictures/fonts/DejaVuSans.ttf")} <= set(data)
    for path in data:
        assert (package / path).read_bytes() == (ours / path).read_bytes()
    for config in (CHECKOUT / "configs").glob("*.yaml"):
        assert (package / "configs" / config.name).read_bytes() == config.read_bytes()
    for name in ("slurm/train.sbatch", "kubernetes/train.yaml", "hostfile.example"):
        assert (package / "launch" / name).read_bytes() == (CHECKOUT / "launch" / name).read_bytes()
    (points,) = unpacked.glob("imgcap-*.dist-info/entry_points.txt")
    assert "imgcap = imgcap.commands.main:main" in points.read_text()
    code = {path.relative_to(ours) for path in ours.rglob("*.py")}
    packed = {path.relative_to(package) for path in package.rglob("*.py")}
    assert code == {path for path in packed if path.parts[0] not in ("configs", "launch")}


def test_its_metadata_is_whole(metadata: Message, unpacked: Path) -> None:
    assert metadata["Version"] == imgcap.__version__
    assert str(metadata.get_payload()).strip() == (CHECKOUT / "README.md").read_text(encoding="utf-8").strip()
    assert metadata["Requires-Python"] == ">=3.11" and "image captioning" in metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    (licences,) = unpacked.glob("imgcap-*.dist-info/licenses")
    assert (licences / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
    assert "Bitstream" in (licences / "imgcap/pictures/fonts/LICENSE").read_text()


def test_extras_are_those_that_errors_name(requirements: dict[str, set[str]]) -> None:
    assert requirements["demo"] == requirements["page"], "the older name stays"
    for module, package in _INSTALLED_AS.items():
        named = re.fullmatch(r"'imgcap\[(\w+)\]'", package)
        asked = {Requirement(line).name.lower().replace("_", "-") for line in requirements[named[1] if named else ""]}
        known = {"open_clip": "open-clip-torch"}.get(module, module.replace("_", "-"))
        assert (known if named else package) in asked, (module, package)
    plain = {"page", "timm", "clip", "onnx", "parquet", "s3", "gcs", "heic", "hub", "wandb", "sweep"}
    assert requirements["all"] == set().union(*(requirements[name] for name in plain))
    assert requirements.keys() - plain == {"", "demo", "docs", "all", "dev"}


def test_the_short_list_is_a_part_of_the_plain_install(requirements: dict[str, set[str]]) -> None:
    lines = (CHECKOUT / "requirements-caption.txt").read_text().splitlines()
    short = {line for line in lines if line and not line.startswith("#")}
    assert short < requirements[""]
    assert not {"deepspeed", "spacy", "tensorboard", "matplotlib"} & {Requirement(line).name for line in short}


def test_constraints_fit_every_requirement(requirements: dict[str, set[str]]) -> None:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    for line in requirements[""] | requirements["dev"]:
        asked = Requirement(line.lower())
        assert pinned[asked.name.replace("_", "-")] in asked.specifier, line


@pytest.mark.exhaustive
def test_it_needs_no_checkout(start: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    assert start("--help").stdout.startswith("usage: imgcap COMMAND")
    assert start("config", "flickr8k").stdout.startswith("name: flickr8k  # ")
    (tmp_path / "own.yaml").write_text("name: own")
    assert start("config", tmp_path / "own.yaml").stdout.startswith("name: own  # ")
    assert "choose one of flickr8k, flickr30k" in start("download", "mnist", "--out", "raw").stderr
    refused = start("train")
    assert refused.returncode == 2 and "there is no shard folder shards/demo" in refused.stderr, "it is the demo's"

    run = save_run(tmp_path / "run", WORDS, "data={image_size: 32, max_tokens: 5}")
    export_run(run, tmp_path / "artefact")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    ended = start("caption", tmp_path / "artefact", tmp_path / "photo.jpg")
    assert ended.returncode == 0 and ended.stdout.startswith(f"{tmp_path / 'photo.jpg'}\t"), ended.stderr
