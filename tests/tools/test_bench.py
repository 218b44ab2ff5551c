"""The bench measures what it says: equal captions and scores from both sides, JSON that can be read, peers named."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from untrained import save_run

from imgcap.shards.reader import ShardReader
from tools.bench.measures import MEASURES
from tools.bench.pinned import cores

ROOT = Path(__file__).resolve().parents[2]
Measured = Callable[..., dict[str, Any]]
PEER = """
import torch
from torch import nn


class DecoderWithAttention(nn.Module):
    def __init__(self, attention_dim, embed_dim, decoder_dim, vocab_size, encoder_dim):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
        self.fc = nn.Linear(8 + encoder_dim, vocab_size)

    def forward(self, encoder_out, captions, lengths):
        images = encoder_out.flatten(1, 2)
        steps = captions.shape[1] - 1
        words = self.embedding(captions[:, :-1])
        scores = self.fc(torch.cat([words, images.mean(1, keepdim=True).expand(-1, steps, -1)], dim=-1))
        attention = torch.full((len(images), steps, images.shape[1]), 1 / images.shape[1])
        return scores, captions, (lengths.squeeze(1) - 1).tolist(), attention, None
"""


CAPTION = """
def caption_image_beam_search(encoder, decoder, image_path, word_map, beam_size=3):
    img = imresize(imread(image_path), (256, 256)).transpose(2, 0, 1)
    vocab_size = len(word_map)
    encoder_out = encoder(torch.FloatTensor(img))
    words = torch.full((beam_size, 1), word_map["<start>"])
    step = 1
    while True:
        features, read = encoder_out.expand(beam_size, -1, -1, -1), words[:, -1:].expand(-1, 2)
        scores, *_ = decoder(features, read, torch.full((beam_size, 1), 2))
        top = scores[:, -1].reshape(-1).topk(beam_size).indices
        words = torch.cat([words[top / vocab_size], (top % vocab_size)[:, None]], dim=1)
        if step > 50:
            break
        step += 1
    assert words.shape[1] == 4, "three steps were asked for"
    raise ValueError("max() arg is an empty sequence")
"""


@pytest.fixture
def bench(command: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: command("tools/bench.py", "--repeats", "1", "--device", "cpu", *arguments)


@pytest.fixture
def measured(bench: Callable[..., Any]) -> Measured:
    def run(*arguments: object) -> dict[str, Any]:
        result = bench(*arguments)
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        assert found["measure"] == arguments[0] and found["rows"]
        return found

    return run


def names(found: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in found["rows"]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "demo"
    command = [sys.executable, "tools/build_shards.py", "demo", "--out", str(folder), "--limit", "40", "--workers", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_both_searches_find_the_same_captions(measured: Measured) -> None:
    found = measured("beam", "--images", 2, "--beams", 1, 3, "--steps", 5)
    assert found["same_captions"] == ["2 of 2", "2 of 2"]
    assert names(found) == [f"beam {beam}, {name}" for beam in (1, 3) for name in ("usual, fp32", "fp32", "bf16")]
    assert all(0 < entry["floor_ms"] < 1000 for entry in found["rows"])


def test_every_option_of_decoding_beside_the_plain_search(measured: Measured) -> None:
    found = measured("decoding", "--images", 1, "--beam", 2, "--steps", 7)
    assert names(found)[0] == "beam" and found["rows"][0]["of_beam"] == 1
    assert {"beam, 3 required words", "diverse", "sample, top_p 0.9", "beam, ensemble of 2"} < set(names(found))


def test_a_step_has_a_rate_in_each_precision_and_way(measured: Measured) -> None:
    found = measured("step", "--images", 1, "--captions", 2, "--tokens", 4)
    assert {"usual, fp32", "fp32", "bf16", "bf16, query after, dot"} < set(names(found))
    assert all(entry["captions_per_s"] > 0 and entry["ratio"] > 0 for entry in found["rows"])


def test_the_parts_are_measured_beside_their_floors(measured: Measured) -> None:
    found = measured("encoder", "--images", 1, "--image-size", 64)
    assert names(found) == ["usual, fp32", "ours, fp32", "usual, bf16", "ours, bf16"]
    assert [entry["floor_ms"] > 0 for entry in found["rows"]] == [True] * 4
    assert [entry["floor_ms"] > 0 for entry in measured("optimiser")["rows"]] == [True] * 2
    assert names(measured("checkpoint")) == ["usual save", "save", "usual load", "load"]


def test_the_loader_and_its_parts(measured: Measured, shards: Path) -> None:
    found = measured("loader", shards, "--samples", 64, "--images", 8, "--image-size", 64)
    assert names(found)[:2] == ["bare loop", "loader"] and found["ratio"] > 0
    assert "one process: decode" in names(found)


def test_the_whole_step_beside_its_parts_and_over_many_steps(measured: Measured, shards: Path) -> None:
    small = (shards, "--encoder", "resnet18", "--images", 4, "--image-size", 32, "--precisions", "bf16")
    found = measured("train", *small)
    assert names(found) == [f"bf16, compile off, {part}" for part in ("whole step", "encoder alone", "decoder alone")]
    assert found["rows"][0]["of_the_parts"] > 0 and 0 <= found["rows"][0]["wait_share"] < 1
    found = measured("train", *small, "--steps", 20)
    assert len(found["rows"]) == 10 and all(entry["MiB"] > 100 for entry in found["rows"])


def test_reading_beside_plain_webdataset_and_the_memory_of_a_worker(measured: Measured, shards: Path) -> None:
    found = measured("reading", shards, "--epochs", 2, "--images", 8, "--image-size", 32)
    ours = ["index reader, shuffled", "decoding alone", "index reader and decoding"]
    assert names(found) == ["plain webdataset, in order", *ours] and found["ratio"] > 0
    assert found["share_of_decoding_alone"] > 0
    assert len(found["worker_mib_after_each_epoch"]) == 2 and min(found["worker_mib_after_each_epoch"]) > 0


def test_the_plan_at_any_scale(measured: Measured) -> None:
    sizes = ("--samples", 40_000, "--tars", 40, "--ranks", 8, "--batch", 64)
    found = measured("plan", *sizes, "--blocks", 2, 40)
    two, all_ = found["rows"]
    assert two["shards_of_a_batch"] == 2 and 30 < all_["shards_of_a_batch"] <= 40
    assert two["order_mb"] == pytest.approx(2 * 2 * 1000 * 8 / 1e6, abs=0.1) and all_["images_of_a_rank_a_step"] == 8
    assert two["distance_of_one_shard_s_samples"] < all_["distance_of_one_shard_s_samples"]


def test_building_beside_bare_processes(measured: Measured, shards: Path, tmp_path: Path) -> None:
    reader = ShardReader(shards, "train")
    rows = ["image,caption"]
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(reader.read(number).jpeg)
        rows += [f"{number}.jpg,a picture of number {number}"] * 2
    (tmp_path / "captions.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("\n".join(f"{number}.jpg" for number in range(10)) + "\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("10.jpg\n11.jpg\n")
    found = measured("build", tmp_path, tmp_path / "captions.txt", "--large", 30, "--processes", 1)
    assert names(found) == ["bare decoding and tokenising", "build"] and found["ratio"] > 0
    assert found["images_of_the_large_build"] == 30 and found["writer_mib_at_most"] >= found["writer_mib_before"]


def test_saving_beside_steps_without(measured: Measured, shards: Path) -> None:
    found = measured("saving", shards, "--steps", 2, "--image-size", 32)
    assert names(found) == ["no save", "in the background", "waiting"]


def test_the_cost_of_images_and_captions_is_fitted(measured: Measured) -> None:
    found = measured("linear", "--images", 1, 4, "--captions", 1, 3, "--image-size", 64, "--tokens", 8)
    assert len(found["rows"]) == 4 and found["fit"]["ms"] > 0


@pytest.mark.exhaustive
def test_scores_are_equal_to_those_of_pycocoevalcap(measured: Measured, shards: Path) -> None:
    found = measured("scoring", shards, "--images", 10)
    assert found["equal"] and names(found)[0] == "pycocoevalcap" and len(found["scores"]) == 7


def test_rewards_by_threads_and_processes(measured: Measured, bench: Callable[..., Any]) -> None:
    small = ("--references-of", 50, "--words", 40, "--images", 3, "--samples", 2, "--steps", 2)
    found = measured("reward", *small, "--metrics", "CIDEr", "BLEU-4")
    assert names(found) == ["1 thread", "2 threads", "2 processes"] and found["bytes_an_image"] > 1000
    assert found["processor_us_a_caption"] > 0
    assert all(entry["captions_per_s"] > 0 for entry in found["rows"])
    assert "no reward 'SPICE'" in bench("reward", *small, "--metrics", "SPICE").mistake


@pytest.mark.dist
@pytest.mark.exhaustive
def test_a_self_critical_step_beside_one_of_cross_entropy(measured: Measured, shards: Path, tmp_path: Path) -> None:
    counts = json.loads((shards / "token_counts.json").read_text())["counts"]
    words = [word for word, count in counts.items() if count >= 20]  # which the data's own vocabulary would exceed
    assert len(words) < len(counts)
    run = save_run(tmp_path / "run", words, "data={image_size: 32, max_tokens: 7}", "vocab={min_count: 20}")
    result = measured("self-critical", run, shards, "--images", 2, "--samples", 3)
    assert names(result) == ["cross-entropy", "self-critical", "drawing", "drawing and rewards"]
    assert result["times_cross_entropy"] > 0 and sum(result["shares"].values()) == pytest.approx(1, abs=0.01)
    assert 0 < result["words_of_a_caption"] <= 7, "of the model's own greatest length"


@pytest.mark.dist
@pytest.mark.exhaustive
def test_ranks_on_cores_of_their_own(measured: Measured, shards: Path, bench: Callable[..., Any]) -> None:
    ranks = min(len(cores()), 2)
    found = measured("scaling", shards, "--ranks", ranks, "--images", 2, "--steps", 2, "--image-size", 32)
    assert names(found) == list(dict.fromkeys(["1 rank", f"{ranks} ranks", f"{ranks} runs of 1 rank"]))
    assert all(entry["images_per_s"] > 0 for entry in found["rows"])
    assert "fewer --ranks" in bench("scaling", shards, "--ranks", 10000).mistake


def test_a_peer_is_run_from_its_checkout_beside_ours(measured: Measured, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(PEER)
    (tmp_path / "caption.py").write_text("import a_library_of_yesterday\n" + CAPTION)
    ways = ["show-attend-tell, theirs", "show-attend-tell, ours, fp32", "show-attend-tell, ours, bf16"]
    checkout = f"show-attend-tell={tmp_path}"
    for found in (
        measured("peers", checkout, "--images", 1, "--captions", 2, "--tokens", 4),
        measured("peer-beams", checkout, "--images", 1, "--beam", 2, "--steps", 3),
    ):
        assert names(found) == ways and found["rows"][0]["ratio"] == 1


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.in_all])
def test_all_can_call_each_measure(name: str) -> None:
    """With the shards alone, where it takes them: `all` has nothing else to give."""
    parser = argparse.ArgumentParser()
    MEASURES[name].add_to(parser)
    assert ("shards" in vars(parser.parse_args(["SHARDS"] if MEASURES[name].shards else []))) == MEASURES[name].shards


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nobody=DIR", "no peer 'nobody'"),
        ("imgcap=missing", "can't be read"),
        ("att2in=missing", "can't be imported"),
        ("imgcap", "NAME=DIR"),
    ],
)
def test_a_wrong_checkout_is_one_line(bench: Callable[..., Any], given: str, told: str) -> None:
    for measure in ("peers", "peer-beams"):
        assert told in bench(measure, given).mistake
