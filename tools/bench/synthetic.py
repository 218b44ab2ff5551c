"""A shard set to train on where there is no data: pictures of blots, captions of random words."""

from pathlib import Path

import numpy as np
from PIL import Image

from imgcap.shards.builder import build
from imgcap.shards.source import Source
from imgcap.types import SPECIAL_TOKENS, Record

PICTURES = 64  # that are drawn; the set has them over and over
NOISE = 6.0  # standard deviation of the pixels' grain, which makes JPEGs of 224 px as large as those of photos


class Words:
    """A tokeniser (see `imgcap.shards.sample.Tokeniser`) of captions that are words and spaces."""

    name = "words between spaces"

    def __call__(self, caption: str) -> list[str]:
        return caption.split()


def synthetic_shards(folder: Path, images: int, image_size: int, captions: int, words: int, vocabulary: int) -> Path:
    """Build shards of so many images, each with `captions` captions of `words` words, in a folder; return their place.

    Every word of a vocabulary of that size occurs, as far as there are places for it.
    """
    random = np.random.default_rng(0)
    chosen = np.arange(images * captions * words) % (vocabulary - len(SPECIAL_TOKENS))
    random.shuffle(chosen)
    texts = iter(" ".join(f"w{word}" for word in row) for row in chosen.reshape(-1, words))
    drawn = [_drawn(folder / f"{number}.jpg", image_size, random) for number in range(min(PICTURES, images))]
    records = [
        Record(number, f"{number}.jpg", drawn[number % len(drawn)], tuple(next(texts) for _ in range(captions)))
        for number in range(images)
    ]
    val = [Record(images, "val.jpg", drawn[0], records[0].captions)]
    source = Source("synthetic", {"train": records, "val": val}, [])
    build(source, folder / "shards", Words())
    return folder / "shards"


def _drawn(path: Path, side: int, random: np.random.Generator) -> Path:
    """Draw a picture a third wider than high, coarse blots and a fine grain, as a photo of the shorter side `side`."""
    width, height = side * 4 // 3, side
    blots = Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    pixels = np.asarray(blots.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grained = pixels + random.normal(0, NOISE, (height, width, 3))
    Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path
