"""Captions without a word are told: nobody has to look for what went wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import draw_photo
from untrained import save_run

from imgcap.types import EOS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model ends every caption at once."""
    folder = tmp_path_factory.mktemp("run") / "run"

    def end_at_once(model: Any) -> None:
        model.decoder.output.bias.data[EOS] = 1e4

    return save_run(folder, ["a", "dog"], "data={image_size: 32, workers: 0}", edit=end_at_once)


@pytest.mark.parametrize("many", [False, True])
def test_empty_captions_are_told(run: Path, command: Callable[..., Any], tmp_path: Path, many: bool) -> None:
    for number in range(3):
        draw_photo(tmp_path / "photos" / f"{number}.jpg", seed=number)
    options = ["--out", tmp_path / "captions.csv"] if many else []
    empty = command("imgcap", "caption", run, tmp_path / "photos", *options)
    assert empty.returncode == 0
    assert "warning: 3 of 3 captions are empty: the model ends them at once" in empty.stderr
    (tmp_path / "captions.csv").unlink(missing_ok=True)
    worded = command("imgcap", "caption", run, tmp_path / "photos", "--min-length", 1, *options)
    assert worded.returncode == 0 and "empty" not in worded.stderr
