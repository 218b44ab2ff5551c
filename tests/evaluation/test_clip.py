"""CLIPScore and RefCLIPScore: the published formulas, in any evaluation, on any number of ranks."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from imgcap.config.evaluation import BY_CLIP, ClipConfig
from imgcap.config.load import load_config
from imgcap.errors import UserError
from imgcap.evaluation.evaluator import Evaluator
from imgcap.evaluation.metrics.clip import ClipScorer, clip_score, ref_clip_score
from imgcap.evaluation.metrics.languages import fitting
from imgcap.evaluation.results import Evaluation
from imgcap.evaluation.signature import parts_of
from imgcap.models.trained import load_captioner
from imgcap.ranks.world import World
from imgcap.shards.reader import ShardReader

open_clip = pytest.importorskip("open_clip")
ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
ALONE = World(0, 1, 0, CPU)
NAME = "tiny-clip"
NETWORK = {
    "embed_dim": 6,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
ON_RANKS = """
import sys
import open_clip
sys.path.insert(0, "launch")
import evaluate
open_clip.add_model_config({folder!r})
evaluate.run("evaluate")
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP of random weights, which open_clip knows by name from here on."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{NAME}.json").write_text(json.dumps(NETWORK))
    open_clip.add_model_config(folder)
    torch.manual_seed(1)
    state = open_clip.create_model(NAME).state_dict()
    for name, tensor in state.items():
        if tensor.ndim > 1 and any(part in name for part in ("attn.", "mlp", "conv1", "token_embedding")):
            tensor *= 3  # so that what it says depends on what it sees
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def asked(weights: Path, *metrics: str) -> list[str]:
    return [f"eval.clip={{model: {NAME}, weights: {weights}}}", f"eval.metrics=[{','.join(metrics)}]"]


def evaluate(run: Path, shards: Path, overrides: list[str]) -> tuple[Evaluator, Evaluation]:
    loaded = load_captioner(run, overrides=overrides)
    config = loaded.config
    evaluator = Evaluator(ShardReader(shards, "val"), loaded.vocabulary, config.data, config.eval, ALONE, split="val")
    return evaluator, evaluator.run(loaded.model)


def published(weights: Path, reader: ShardReader, captions: dict[int, str]) -> dict[int, tuple[float, float]]:
    """Both scores of each image as https://github.com/jmhessel/clipscore computes them, an image at a time."""
    model, preprocess = open_clip.create_model_from_pretrained(NAME, str(weights))
    model.eval()

    def unit(features_NE: torch.Tensor) -> np.ndarray:
        array_NE = features_NE.double().numpy()
        return array_NE / np.sqrt(np.sum(array_NE**2, axis=1, keepdims=True))

    found = {}
    for sample in map(reader.read, range(len(reader))):
        with torch.no_grad():
            pixels_1CHW = preprocess(Image.open(io.BytesIO(sample.jpeg)))[None]
            texts = [f"A photo depicts {caption}" for caption in (captions[sample.image_id], *sample.captions)]
            picture_1E, texts_NE = unit(model.encode_image(pixels_1CHW)), unit(model.encode_text(tokenised(texts)))
        alone = 2.5 * np.clip(np.sum(picture_1E * texts_NE[:1], axis=1), 0, None)[0]
        nearest = np.clip(np.max(texts_NE[:1] @ texts_NE[1:].T), 0, None)
        found[sample.image_id] = (alone, 2 * alone * nearest / (alone + nearest) if alone else 0.0)
    return found


def tokenised(texts: list[str]) -> torch.Tensor:
    return open_clip.get_tokenizer("ViT-B-32")(texts)


def test_both_are_what_the_paper_defines(run: Path, tiny: Path, weights: Path) -> None:
    evaluator, evaluation = evaluate(run, tiny, asked(weights, "BLEU", *BY_CLIP))
    captions = {caption["image_id"]: caption["caption"] for caption in evaluation.captions}
    expected = published(weights, evaluator.reader, captions)
    assert [image["image_id"] for image in evaluation.images] == list(expected)
    for image in evaluation.images:
        assert (image["CLIPScore"], image["RefCLIPScore"]) == pytest.approx(expected[image["image_id"]], abs=6e-5)
    means = np.mean(list(expected.values()), axis=0)
    assert [evaluation.scores[name] for name in BY_CLIP] == pytest.approx(means, abs=1.2e-4)
    assert list(evaluation.scores)[-2:] == list(BY_CLIP) and "BLEU-4" in evaluation.scores
    assert len({image["CLIPScore"] for image in evaluation.images}) > 5, "this CLIP says the same of every image"
    assert min(expected.values())[0] == 0 < max(expected.values())[0], "no image shows that cosines are cut at 0"


@pytest.mark.parametrize(
    ("cosine", "references", "alone", "with_references"),
    [(0.3, [0.5, 0.75], 0.75, 0.75), (0.2, [0.25], 0.5, 1 / 3), (-0.1, [0.9], 0.0, 0.0), (0.3, [-0.5], 0.75, 0.0)],
)
def test_the_formulas(cosine: float, references: list[float], alone: float, with_references: float) -> None:
    assert clip_score(cosine) == pytest.approx(alone)
    assert ref_clip_score(clip_score(cosine), references) == pytest.approx(with_references)


def test_the_signature_names_network_weights_and_preprocessing(run: Path, tiny: Path, weights: Path) -> None:
    _, evaluation = evaluate(run, tiny, asked(weights, "CLIPScore"))
    parts = parts_of(evaluation.signature)
    assert parts["clip"] == f"{NAME}@{sha256(weights.read_bytes()).hexdigest()[:12]}"
    assert parts["clip_input"] == "32x32 bicubic shortest mean 0.4815 0.4578 0.4082 std 0.2686 0.2613 0.2758"
    assert parts["open_clip"] == open_clip.__version__
    assert list(evaluation.scores) == ["CLIPScore"]
    _, plain = evaluate(run, tiny, ["eval.metrics=[]"])
    assert "clip" not in plain.signature


def test_a_second_evaluation_reads_no_picture_again_and_says_the_same(
    run: Path, tiny: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, first = evaluate(run, tiny, asked(weights, *BY_CLIP))
    monkeypatch.setattr(ClipScorer, "_pictures", None)
    assert evaluator.run(load_captioner(run).model).images == first.images


def test_a_run_s_own_draws_stay_as_they_are(weights: Path) -> None:
    before = torch.get_rng_state()
    ClipScorer(ClipConfig(model=NAME, weights=weights), BY_CLIP, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_captions_in_other_languages_are_not_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert fitting(["BLEU", *BY_CLIP], "de") == ("BLEU",)
    assert "CLIPScore is left out for language 'de': CLIP reads English" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "name", "told"),
    [
        (NAME, "none.pt", r"eval\.clip\.weights=\S+none\.pt is no file; name the weights of tiny-clip"),
        (NAME, "junk.safetensors", r"eval\.clip\.weights=\S+junk\.safetensors can't be read as tiny-clip \("),
        (
            NAME,
            "other.pth",
            r"eval\.clip\.weights=\S+other\.pth can't be read as tiny-clip \(its tensors are another network\'s\)",
        ),
        ("ViT-B-33", "other.pth", r"eval\.clip\.model=ViT-B-33 is no network of open_clip; the nearest is ViT-B-32"),
    ],
)
def test_weights_that_are_none(model: str, name: str, told: str, weights: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 100)
    with pytest.raises(UserError, match=told):
        ClipScorer(ClipConfig(model=model, weights=tmp_path / name), BY_CLIP, CPU)


def test_weights_that_nobody_named() -> None:
    with pytest.raises(UserError, match=r"eval\.metrics holds RefCLIPScore.*ViT-B-32.*by eval\.clip\.weights$"):
        load_config(None, ["eval.metrics=[BLEU,RefCLIPScore]"])


@pytest.mark.slow
def test_in_training(command: Callable[..., Any], shards: Path, weights: Path, tmp_path: Path) -> None:
    settings = [
        f"data={{shards: {shards}, image_size: 32, workers: 0, augment: light}}",
        "model.encoder={name: resnet18, weights: none}",
        "model.decoder={embed_dim: 16, hidden_dim: 24, attention_dim: 16}",
        "train={global_batch: 8, max_steps: 2}",
        "eval={every: 1, limit: 4, beam: 2}",
        "log={every: 1, tensorboard: false}",
        f"run_dir={tmp_path}/run",
    ]
    ended = command("imgcap", "train", "--config", os.devnull, *settings, *asked(weights, *BY_CLIP))
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "val/CLIPScore" in line]
    assert len(scored) == 2 and all(0 <= line["val/RefCLIPScore"] <= 10 / 7 for line in scored)


@pytest.mark.dist
@pytest.mark.slow
def test_the_same_on_1_and_2_ranks(run: Path, weights: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ON_RANKS.format(folder=str(weights.parent)))
    found = []
    for ranks in (1, 2):
        through = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *through, str(program), str(run), "--split", "val", *asked(weights, *BY_CLIP)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
        assert ended.returncode == 0, ended.stderr
        found.append((ended.stdout.splitlines()[-1], (run / "results" / "val-images.json").read_text()))
    assert found[0] == found[1] and "RefCLIPScore" in found[0][1]
