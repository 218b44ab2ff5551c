"""Two small models to show, and pictures of every sort to drop."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

ENGLISH = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]
ARABIC = ["كلب", "قطة", "طائر", "كرة", "حمراء", "زرقاء", "خضراء", "يجري", "يجلس", "يطير", "على", "تحت"]


PAGE = ["data={image_size: 48, max_tokens: 7}", "eval.beam=3"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that attends and speaks English, one that doesn't and speaks Arabic."""
    folder = tmp_path_factory.mktemp("models")
    english = save_run(folder / "english", ENGLISH, *PAGE)
    lstm = "model.decoder={type: lstm, embed_dim: 8, hidden_dim: 12}"
    return english, save_run(folder / "arabic", ARABIC, lstm, *PAGE)


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((90, 60), Image.Resampling.BILINEAR)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pictures that need care, by what they are; all show 90 × 60 pixels when they stand upright."""
    folder = tmp_path_factory.mktemp("good")
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = photo(2).convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 45, 60))
    photo(1).save(folder / "plain.jpg", quality=95)
    clear.save(folder / "alpha.png")
    photo(3).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", quality=95, exif=turned)
    photo(4).convert("CMYK").save(folder / "cmyk.jpg")
    photo(5).save(folder / "animated.gif", save_all=True, append_images=[photo(6), photo(7)])
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="session")
def bad(good: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """What can't be captioned, with the reason that the page gives."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.jpg").write_text("no picture\n" * 100)
    (folder / "truncated.jpg").write_bytes(good["plain"].read_bytes()[:700])
    (folder / "empty.jpg").touch()
    Image.new("L", (10_000, 6_000)).save(folder / "huge.png")
    reasons = {
        "text.jpg": "not an image",
        "truncated.jpg": "truncated or damaged image",
        "empty.jpg": "zero bytes",
        "huge.png": "more than 40,000,000 pixels",
    }
    return {Path(name).stem: (folder / name, f"{name} can't be captioned: {why}") for name, why in reasons.items()}
