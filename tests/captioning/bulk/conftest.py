"""A folder of drawn pictures, a shard set of them, and a run whose weights are random but sharp."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

from imgcap.shards.builder import build
from imgcap.shards.source import Source
from imgcap.types import Record

CHECKOUT = Path(__file__).parents[3]
PICTURES, BATCH = 22, 4
# Words that a table must quote, and some that are written from right to left.
WORDS = ["a", "the", 'say "red"', "blue, dark", "line\nbreak", "<b>dog</b>", "cat", "كلب", "ball", "runs", "sits", "on"]


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((50, 40)).save(path)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        draw(
            folder / f"{number % 3}" / (f"{number:02d}.jpg" if number % 5 else f"{number:02d}, a “picture”.png"), number
        )
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="session")
def picture_shards(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    class Words:
        name = "split on white space"

        def __call__(self, caption: str) -> list[str]:
            return caption.split()

    paths = sorted(pictures.rglob("*.jpg"))
    records = [Record(100 + number, path.name, path, ("a cat sits",)) for number, path in enumerate(paths)]
    folder = tmp_path_factory.mktemp("shards") / "tiny"
    build(Source("tiny", {"test": records}, []), folder, Words())
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, evaluation = (
        "data={image_size: 32, max_tokens: 7, workers: 0}",
        f"eval={{beam: 3, batch: {BATCH}, metrics: []}}",
    )
    return save_run(tmp_path_factory.mktemp("run"), WORDS, data, evaluation, seed=5)


@pytest.fixture
def caption(warm, run):
    """Run launch/caption.py on `ranks` processes; `killed` is what killed.py takes."""

    def start(where, out, *options, ranks=1, killed=None):
        through = ["tests/captioning/bulk/killed.py", json.dumps(killed)] if killed else []
        arguments = [*through, "launch/caption.py", run, where, "--out", out, *options]
        return warm[False].run(arguments, CHECKOUT, os.environ | {"OMP_NUM_THREADS": "1"}, ranks)

    return start
