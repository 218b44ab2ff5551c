"""From a run to captions with encoders of other families: their pictures, tokens and weights go all the way."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import save_run

import imgcap
from imgcap.config.model import EncoderConfig
from imgcap.data.augmentation import eval_image
from imgcap.errors import UserError
from imgcap.export.artefact import export_run
from imgcap.export.onnx_runner import OnnxCaptioner
from imgcap.models.encoders.base import Encoder
from imgcap.models.trained import load_captioner
from imgcap.training.feature_cache import describe

WORDS = ["a", "dog", "runs", "sits", "here", "there"]
TRANSFORMER = "model.decoder={type: transformer, layers: 2, width: 16, heads: 2, feedforward: 24}"
ENCODERS = {
    "a grid": "{name: mobilenet_v3_small, weights: none}",
    "a class token": "{name: timm/vit_tiny_patch16_224, input_size: 64, weights: none, tokens: all}",
    "registers": "{name: timm/vit_small_patch14_reg4_dinov2, input_size: 70, weights: none}",
}


@pytest.fixture(params=ENCODERS)
def run(request, tmp_path):
    """A run with an encoder, whose pictures are bicubic."""
    if "timm" in ENCODERS[request.param]:
        pytest.importorskip("timm")
    size = 70 if request.param == "registers" else 64
    encoder = f"model.encoder={ENCODERS[request.param]}"
    return save_run(
        tmp_path / "run", WORDS, encoder, TRANSFORMER, f"data={{image_size: {size}, interpolation: bicubic}}"
    )


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (90, 120, 3), np.uint8)) for _ in range(3)]


def test_an_artefact_captions_as_its_run_does(run, pictures, tmp_path):
    loaded, artefact = imgcap.load(run, "cpu"), tmp_path / "artefact"
    expected = loaded.caption(pictures, attention=True)
    export_run(run, artefact)
    for found, own in zip(imgcap.load(artefact, "cpu").caption(pictures, attention=True), expected, strict=True):
        assert (found.text, found.score) == (own.text, own.score)
        np.testing.assert_array_equal(found.attention, own.attention)
    encoder = loaded.loaded.model.encoder
    rows, columns = encoder.grid(loaded.loaded.config.data.image_size)
    sums = np.concatenate([own.attention.sum((1, 2)) for own in expected])
    assert expected[0].attention.shape[1:] == (rows, columns)
    if encoder.leading:  # what words looked at a class token is on no cell
        assert (sums > 0).all() and (sums < 0.999).all()
    else:
        np.testing.assert_allclose(sums, 1, atol=1e-5)
    manifest = json.loads((artefact / "config.json").read_text())
    assert manifest["data"]["interpolation"] == "bicubic"
    assert manifest["encoder"] == {"made_by": encoder.made_by, "sha256": encoder.sha256()}
    assert ("timm" in encoder.made_by) == bool(encoder.signed())


def test_the_runner_of_the_graphs_prepares_the_same_pixels(pictures):
    runner = OnnxCaptioner.__new__(OnnxCaptioner)
    for interpolation in ("bilinear", "bicubic"):
        runner.config = {"data": {"image_size": 48, "interpolation": interpolation}}
        own = eval_image(pictures[0], 48, interpolation).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(runner.prepare(pictures[0]), own)


@torch.no_grad()
def test_cached_features_have_a_place_for_every_token(run):
    loaded = load_captioner(run)
    encoder, size = loaded.model.encoder, loaded.config.data.image_size
    features = describe(encoder, size, "bicubic")
    found = encoder(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    assert features.shape == tuple(found.shape[1:]) and features.interpolation == "bicubic"
    assert features.encoder == encoder.made_by and features.encoder_sha256 == encoder.sha256()


def test_the_hash_knows_which_tokens_are_kept():
    both = [Encoder(EncoderConfig(name="vit_b_32", weights=None, tokens=tokens)) for tokens in ("patches", "all")]
    both[1].load_state_dict(both[0].state_dict())
    assert both[0].sha256() != both[1].sha256()


def test_a_size_that_the_network_cannot_take_is_refused_when_it_is_opened(tmp_path):
    encoder = "model.encoder={name: vit_b_32, weights: none}"
    run = save_run(tmp_path / "run", WORDS, encoder, TRANSFORMER, "data.image_size=96")
    with pytest.raises(UserError, match=r"data\.image_size=96: vit_b_32 takes pictures of 224"):
        load_captioner(run)
