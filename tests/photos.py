"""Pictures that compress as photos do."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_photo(path: Path, width: int = 48, height: int = 32, seed: int = 0, **options: object) -> Path:
    """A smooth gradient with a little noise: it compresses as photos do, and no two seeds look the same."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    colours = random.uniform(0, 255, size=3)
    pixels = colours + 2.0 * rows[..., None] - 1.5 * columns[..., None] + random.normal(0, 4, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, **options)
    return path
