"""A shard set of eleven drawn pictures, and a run on it whose weights are random but sharp."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

from imgcap.shards.builder import build
from imgcap.shards.source import Source
from imgcap.types import Record

IMAGES = 11
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


class Words:
    name = "split on white space"

    def __call__(self, caption: str) -> list[str]:
        return caption.lower().split()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    records = []
    for number in range(IMAGES):
        path = folder / "photos" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (4, 5, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((50, 40)).save(path)
        captions = tuple(" ".join(random.choice(WORDS, size)) for size in random.integers(3, 9, 1 + number % 3))
        records.append(Record(100 + number, path.name, path, captions))
    build(Source("tiny", {"val": records}, []), folder / "tiny", Words())
    return folder / "tiny"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    data = f"data={{shards: {tiny}, image_size: 32, captions_per_image: 2, max_tokens: 8, workers: 0}}"
    scored = "eval={batch: 4, beam: 3, metrics: [BLEU, ROUGE-L, CIDEr]}"
    return save_run(tmp_path_factory.mktemp("runs") / "tiny", WORDS, data, scored, step=7)
