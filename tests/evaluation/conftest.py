"""A shard set of eleven drawn pictures, and a run on it whose weights are random but sharp."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgcap import checkpoint
from imgcap.config import Config, load_config, save_config
from imgcap.models import Captioner
from imgcap.shards import Source, build
from imgcap.text import Vocabulary
from imgcap.types import Record

IMAGES = 11
WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


class Words:
    name = "split on white space"

    def __call__(self, caption: str) -> list[str]:
        return caption.lower().split()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    config: Config = load_config(
        None,
        [
            f"data={{shards: {shards}, image_size: 32, captions_per_image: 2, max_tokens: 8, workers: 0}}",
            "model.encoder={name: resnet18, weights: none, output_stride: 16}",
            "model.decoder={embed_dim: 8, hidden_dim: 12, attention_dim: 6}",
            "eval={batch: 4, beam: 3, metrics: [BLEU, ROUGE-L, CIDEr]}",
        ],
    )
    vocabulary = Vocabulary.build(dict.fromkeys(WORDS, 1))
    torch.manual_seed(1)
    model = Captioner(config.model, len(vocabulary))
    with torch.no_grad():
        model.decoder.output.weight.mul_(60)
    save_config(config, folder / "config.yaml")
    vocabulary.save(folder / "vocab.json")
    checkpoint.save(folder / "checkpoints", 7, model.state_dict(), {}, {}, keep=1, best=True)
    return folder
