"""Small runs of random, sharp weights: what they say depends on the picture."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imgcap.checkpoint.save import save_checkpoint
from imgcap.config.load import as_yaml, load_config
from imgcap.models.captioner import Captioner
from imgcap.text.vocabulary import Vocabulary

WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Write a run of one checkpoint, of step 7, into a folder."""

    def make(folder: Path, *overrides: str, edit: Callable[[Captioner], object] = lambda model: None) -> Path:
        settings = [
            "name=small",
            "data={image_size: 48, max_tokens: 7, shards: /home/someone/shards}",
            "model.encoder={name: resnet18, weights: none, output_stride: 16}",
            "model.decoder={embed_dim: 8, hidden_dim: 12, attention_dim: 6}",
            "eval.beam=3",
        ]
        config = load_config(None, [*settings, *overrides])
        vocabulary = Vocabulary.build(dict.fromkeys(WORDS, 1))
        torch.manual_seed(1)
        model = Captioner(config.model, len(vocabulary))
        with torch.no_grad():
            model.decoder.output.weight.mul_(60)
            edit(model)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(as_yaml(config))
        vocabulary.save(folder / "vocab.json")
        save_checkpoint(folder / "checkpoints", 7, model.state_dict(), {}, {}, keep=2, best=True)
        return folder

    return make


@pytest.fixture(scope="session")
def small_run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("small") / "run")
