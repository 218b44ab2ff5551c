"""What a captioner is loaded from: a run or an artefact, whole and fitting together."""

import shutil
from pathlib import Path

import pytest
import torch

from imgcap.checkpoint.save import save_checkpoint
from imgcap.config.load import as_yaml, load_config
from imgcap.errors import UserError
from imgcap.export.artefact import export_run
from imgcap.models.captioner import Captioner
from imgcap.models.trained import load_captioner
from imgcap.text.vocabulary import Vocabulary

SMALL = [
    "model.encoder={name: resnet18, weights: DEFAULT, output_stride: 16}",  # must not be fetched
    "model.decoder={embed_dim: 8, hidden_dim: 12, attention_dim: 6}",
    "data.image_size=32",
    "eval.beam=3",
]
VOCABULARY = Vocabulary.build({"dog": 3, "cat": 2, "a": 5})


@pytest.fixture(scope="module")
def original() -> Captioner:
    torch.manual_seed(0)
    return Captioner(load_config(None, SMALL).model, len(VOCABULARY)).eval()


@pytest.fixture
def run(tmp_path: Path, original: Captioner) -> Path:
    """A run whose best checkpoint is step 1 and whose latest is step 2, of other weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(as_yaml(load_config(None, SMALL)))
    VOCABULARY.save(folder / "vocab.json")
    weights = original.state_dict()
    save_checkpoint(folder / "checkpoints", 1, weights, {}, {}, keep=2, best=True)
    later = {name: tensor + 1 for name, tensor in weights.items()}
    save_checkpoint(folder / "checkpoints", 2, later, {}, {}, keep=2)
    return folder


@pytest.fixture
def artefact(tmp_path: Path, run: Path) -> Path:
    export_run(run, tmp_path / "artefact")
    return tmp_path / "artefact"


@pytest.mark.parametrize("kind", ["run", "artefact"])
def test_loaded_logits_equal_the_original(kind: str, original: Captioner, request: pytest.FixtureRequest) -> None:
    loaded = load_captioner(request.getfixturevalue(kind))
    images_BCHW = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens_BKT = torch.randint(4, len(VOCABULARY), (2, 3, 6))
    with torch.no_grad():
        assert torch.equal(loaded.model(images_BCHW, tokens_BKT)[0], original(images_BCHW, tokens_BKT)[0])
    assert not loaded.model.training
    assert loaded.vocabulary == VOCABULARY
    assert loaded.config.eval.beam == 3 and loaded.config.data.image_size == 32
    assert loaded.is_run == (kind == "run")


def test_best_and_latest(run: Path, original: Captioner) -> None:
    assert load_captioner(run).step == 1
    latest = load_captioner(run, which="latest")
    assert latest.step == 2
    assert torch.equal(latest.model.decoder.output.bias, original.decoder.output.bias + 1)


@pytest.mark.parametrize("kind", ["run", "artefact"])
def test_overrides_reach_the_configuration(kind: str, request: pytest.FixtureRequest) -> None:
    loaded = load_captioner(request.getfixturevalue(kind), overrides=["eval.beam=7", "data.shards=elsewhere"])
    assert (loaded.config.eval.beam, loaded.config.data.shards) == (7, "elsewhere")
    with pytest.raises(UserError, match=r"nearest valid one is eval\.beam"):
        load_captioner(request.getfixturevalue(kind), overrides=["eval.beem=7"])


@pytest.mark.parametrize(
    ("kind", "told"), [("run", "has 6 entries and the model was trained with 7"), ("artefact", "damaged .* vocab.json")]
)
def test_a_vocabulary_that_does_not_fit_is_refused(kind: str, told: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    Vocabulary.build({"dog": 3, "cat": 2}).save(folder / "vocab.json")
    with pytest.raises(UserError, match=told):
        load_captioner(folder)


def test_weights_of_another_model_are_refused(run: Path) -> None:
    with pytest.raises(UserError, match="not those of the model"):
        load_captioner(run, overrides=["model.decoder.hidden_dim=16"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("name: resnet18", "name: resne"), "encoder.name=resne is no encoder"),
        (("name: resnet18", "name: vit_b_16"), "output_stride"),
    ],
)
def test_a_configuration_that_no_model_can_be_built_of_is_named(run: Path, change: tuple[str, str], told: str) -> None:
    described = (run / "config.yaml").read_text()
    assert change[0] in described
    (run / "config.yaml").write_text(described.replace(*change))
    with pytest.raises(UserError, match=f"{run} describes can't be built: .*{told}"):
        load_captioner(run)


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("run", "vocab.json"),
        ("run", "checkpoints"),
        ("run", "config.yaml"),
        ("artefact", "vocab.json"),
        ("artefact", "model.safetensors"),
        ("artefact", "config.json"),
    ],
)
def test_a_missing_part_is_named(kind: str, lost: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    shutil.rmtree(folder / lost) if (folder / lost).is_dir() else (folder / lost).unlink()
    with pytest.raises(UserError, match=lost.replace("checkpoints", "no checkpoint in")):
        load_captioner(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 9, "model": {}, "data": {}, "eval": {}}'])
def test_a_damaged_artefact_is_refused(artefact: Path, content: str) -> None:
    (artefact / "config.json").write_text(content)
    with pytest.raises(UserError, match="artefact"):
        load_captioner(artefact)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run and no artefact"):
        load_captioner(tmp_path / "nowhere")
