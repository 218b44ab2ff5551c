"""An evaluation counts every image once and gives the same result on any number of ranks."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from untrained import predict, save_run

from imgcap.data.dataset import EvalDataset
from imgcap.decoding.search import beam_search
from imgcap.errors import UserError
from imgcap.evaluation import evaluator
from imgcap.evaluation.batches import FixedBatches
from imgcap.evaluation.coco_files import read_results
from imgcap.evaluation.evaluator import Evaluator
from imgcap.evaluation.metrics.languages import without_punctuation
from imgcap.evaluation.outside import score_results
from imgcap.evaluation.results import Evaluation, write_results
from imgcap.evaluation.signature import parts_of
from imgcap.models.trained import LoadedCaptioner, load_captioner
from imgcap.ranks.world import World
from imgcap.shards.builder import build
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.written import written
from imgcap.types import PAD, Record

ROOT = Path(__file__).parents[2]
ALONE = World(0, 1, 0, torch.device("cpu"))


def evaluate(loaded: LoadedCaptioner, tiny: Path, **options: object) -> Evaluation:
    config = loaded.config
    arguments = (ShardReader(tiny, "val"), loaded.vocabulary, config.data, config.eval, ALONE)
    return Evaluator(*arguments, split="val", **options).run(loaded.model)


def launch(run: Path, ranks: int, *options: str, program: str = "launch/evaluate.py") -> subprocess.CompletedProcess:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *torchrun, program]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += [str(run), "--split", "val", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@given(count=st.integers(1, 40), batch=st.integers(1, 9), world_size=st.integers(1, 6))
def test_batches_are_the_same_for_every_world_size(count: int, batch: int, world_size: int) -> None:
    ranks = [FixedBatches(count, batch, rank, world_size) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1, "a rank takes more steps than another"
    alone = FixedBatches(count, batch, 0, 1)
    composed = {n: rank.indices(n) for rank in ranks for n in rank.numbers if rank.real(n)}
    assert composed == {n: alone.indices(n) for n in alone.numbers}
    assert all(len(indices) == batch for indices in composed.values())
    counted = [index for n, indices in sorted(composed.items()) for index in indices[: alone.real(n)]]
    assert counted == list(range(count))


def test_captions_and_loss_are_those_of_the_images_one_by_one(run: Path, tiny: Path) -> None:
    loaded = load_captioner(run)
    evaluation = evaluate(loaded, tiny)
    reader = ShardReader(tiny, "val")
    dataset = EvalDataset(reader, loaded.vocabulary, loaded.config.data)
    captions, cross_entropy, tokens = [], 0.0, 0
    for index in range(len(dataset)):
        image_CHW, tokens_KT = dataset[index]
        with torch.no_grad():
            features_1PE = loaded.model.encoder(image_CHW[None])
            found = beam_search(loaded.model.decoder, features_1PE, 3, 8)
            logits_KTV = predict(loaded.model.decoder, features_1PE, tokens_KT[None])[0][0]
        sample, said = reader.read(index), loaded.vocabulary.decode(found.tokens_BL[0].tolist())
        captions.append({"image_id": sample.image_id, "image": sample.file_name, "caption": said})
        log_probs = logits_KTV.double().log_softmax(-1).gather(-1, tokens_KT[:, 1:, None]).squeeze(-1)
        cross_entropy -= (log_probs * (tokens_KT[:, 1:] != PAD)).sum().item()
        tokens += int((tokens_KT[:, 1:] != PAD).sum())
    assert evaluation.captions == captions
    assert evaluation.loss == pytest.approx(cross_entropy / tokens, rel=1e-5)
    assert len({caption["caption"] for caption in captions}) > 1, "the model says the same of every image"


def test_french_is_scored_as_it_is_written(tmp_path: Path) -> None:
    said = ["L'homme d'affaires attend Mme. Dupont", "Un chien n'a qu'une balle", "L'eau d'un lac, jusqu'au soir"]
    records = []
    for number, caption in enumerate(said):
        Image.new("RGB", (40, 40), (80 * number, 0, 90)).save(tmp_path / f"{number}.png")
        records.append(Record(number, f"{number}.png", tmp_path / f"{number}.png", (caption,)))
    cut = Tokeniser("fr")
    build(Source("french", {"val": records}, []), tmp_path / "set", cut, language="fr")
    data = f"data={{shards: {tmp_path / 'set'}, language: fr, image_size: 32, max_tokens: 8, workers: 0}}"
    words = sorted({word for caption in said for word in cut(caption)})
    save_run(tmp_path / "run", words, data, "eval={batch: 3, beam: 2, metrics: [BLEU, ROUGE-L, CIDEr]}")
    evaluation = evaluate(load_captioner(tmp_path / "run"), tmp_path / "set")
    tokens = [example.words for example in evaluation.examples]
    assert any("'" in word for group in tokens for word in group), "no word of a caption is elided"
    assert [caption["caption"] for caption in evaluation.captions] == [written(group, "fr") for group in tokens]
    length = sum(len(without_punctuation(group)) for group in tokens) / 3
    assert evaluation.diversity["length"] == pytest.approx(length), "diversity counts other words than the model's"

    write_results(tmp_path, evaluation, step=1)
    results = read_results(str(tmp_path / "results" / "val-captions.json"))
    scored = score_results(results, f"{tmp_path / 'set'}:val", ["BLEU", "ROUGE-L", "CIDEr"])
    assert {name: scored[name] for name in evaluation.scores} == evaluation.scores
    assert parts_of(scored["signature"])["tokeniser"] == parts_of(evaluation.signature)["tokeniser"]


def test_references_are_the_raw_captions(run: Path, tiny: Path) -> None:
    evaluation = evaluate(load_captioner(run), tiny)
    first = ShardReader(tiny, "val").read(0)
    assert evaluation.examples[0].references == first.captions
    assert evaluation.examples[0].image_id == first.image_id
    references = sum(1 + number % 3 for number in range(11))
    assert "images:11|" in evaluation.signature and f"references:{references}|" in evaluation.signature


def test_each_image_has_scores_whose_mean_is_the_whole(run: Path, tiny: Path, tmp_path: Path) -> None:
    evaluation = evaluate(load_captioner(run), tiny)
    write_results(tmp_path, evaluation, step=1)
    images = json.loads((tmp_path / "results" / "val-images.json").read_text())
    assert [image["image_id"] for image in images] == [caption["image_id"] for caption in evaluation.captions]
    for name in ("CIDEr", "ROUGE-L"):
        assert np.mean([image[name] for image in images]) == pytest.approx(evaluation.scores[name], rel=1e-12)
    assert len({image["BLEU-4"] for image in images}) > 1


def test_limit_takes_the_first_images(run: Path, tiny: Path) -> None:
    loaded = load_captioner(run)
    whole, limited = evaluate(loaded, tiny), evaluate(loaded, tiny, limit=6)
    assert limited.captions == whole.captions[:6]


def test_constraints_are_heeded_and_named_in_the_signature(run: Path, tiny: Path) -> None:
    plain = evaluate(load_captioner(run), tiny)
    assert "min_length" not in plain.signature and "no_repeat_ngram" not in plain.signature
    overrides = ["eval.min_length=6", "eval.no_repeat_ngram=2"]
    loaded = load_captioner(run, overrides=overrides)
    evaluation = evaluate(loaded, tiny)
    assert "|length_penalty:1.0|min_length:6|no_repeat_ngram:2|max_words:8|" in evaluation.signature
    for example in evaluation.examples:
        assert len(example.words) >= 6 and len(set(pairwise(example.words))) == len(example.words) - 1
    assert evaluation.captions != plain.captions


@pytest.mark.parametrize(
    ("override", "part", "differ"),
    [
        ("data.image_size=48", "input", ("captions", "loss")),
        ("data.interpolation=bicubic", "input", ("loss",)),
        ("data.captions_per_image=1", "loss_captions", ("loss",)),
    ],
)
def test_what_changes_scores_or_loss_changes_the_signature(
    override: str, part: str, differ: tuple[str, ...], run: Path, tiny: Path
) -> None:
    plain, other = (evaluate(load_captioner(run, overrides=given), tiny) for given in ([], [override]))
    assert all(getattr(plain, name) != getattr(other, name) for name in differ)
    before, after = parts_of(plain.signature), parts_of(other.signature)
    assert (before["input"], before["loss_captions"]) == ("32px-bilinear", "2")
    assert {name for name in before if before[name] != after[name]} == {part}


def test_attention_of_the_examples_has_a_row_a_word(run: Path, tiny: Path) -> None:
    for example in evaluate(load_captioner(run), tiny).examples:
        assert example.attention_LP.shape == (len(example.words), example.grid[0] * example.grid[1])
        assert example.attention_LP.sum(1) == pytest.approx(1.0, abs=1e-5)


def test_the_model_is_left_in_its_mode(run: Path, tiny: Path) -> None:
    loaded = load_captioner(run)
    loaded.model.train()
    evaluate(loaded, tiny, limit=2)
    assert loaded.model.decoder.training


def test_a_damaged_image_is_named_and_left_out(run: Path, tiny: Path, tmp_path: Path, capfd) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    tar = copy / "val-00000.tar"
    data = bytearray(tar.read_bytes())
    start = data.index(b"\xff\xd8\xff")
    data[start : start + 200] = bytes(200)  # of the first image
    tar.write_bytes(data)
    loaded = load_captioner(run)
    whole, damaged = evaluate(loaded, tiny), evaluate(loaded, copy)
    assert f"skipped: 0.jpg (sample 0 of {copy}):" in capfd.readouterr().err
    assert "skipped:1|" in damaged.signature and "images:10|" in damaged.signature
    assert len(damaged.captions) == 10
    assert all(caption in whole.captions for caption in damaged.captions)


def test_a_failure_of_scoring_is_raised_as_what_it_is(run: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_java(*arguments: object) -> None:
        raise UserError("no Java")

    monkeypatch.setattr(evaluator, "score_images", no_java)
    with pytest.raises(UserError, match="no Java"):
        evaluate(load_captioner(run), tiny)


@pytest.mark.dist
@pytest.mark.slow
def test_scores_and_captions_are_the_same_on_1_2_and_3_ranks(run: Path) -> None:
    results = []
    for ranks in (1, 2, 3):
        process = launch(run, ranks)
        assert process.returncode == 0, process.stderr
        scores = process.stdout.strip().splitlines()[-1]
        captions = (run / "results" / "val-captions.json").read_text()
        written = json.loads((run / "results" / "val-scores.json").read_text())
        assert written == json.loads(scores)
        results.append((scores, captions))
    assert results[0] == results[1] == results[2]
    assert list(json.loads(results[0][0])) == [
        *(f"BLEU-{n}" for n in (1, 2, 3, 4)),
        "ROUGE-L",
        "CIDEr",
        "loss",
        "signature",
        "diversity",
    ]


@pytest.mark.dist
@pytest.mark.slow
def test_no_rank_hangs_when_another_fails(run: Path, tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text(
        """
import sys
sys.path.insert(0, "launch")
import evaluate
from imgcap.errors import UserError
from imgcap.evaluation.evaluator import Evaluator
decode = Evaluator._decode
def failing(self, *arguments):
    if self.world.rank == 1:
        raise UserError("the disk went away")
    return decode(self, *arguments)
Evaluator._decode = failing
evaluate.run("evaluate")
"""
    )
    process = launch(run, 2, program=str(program))
    assert process.returncode != 0
    assert process.stderr.count("error: the disk went away") == 1
    assert process.stderr.count("exitcode  : 2") == 1, "the rank that was asked to wait has not been ended"
