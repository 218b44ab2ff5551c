"""The bench measures what it says: equal captions from both searches, JSON that can be read, peers named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


def bench(*arguments):
    command = [sys.executable, "tools/bench.py", "--repeats", "1", "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def measured(*arguments):
    result = bench(*arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_both_searches_find_the_same_captions():
    found = measured("beam", "--images", 2, "--beam", 3, "--steps", 5)
    assert found["same_captions"] == "2 of 2" and found["ratio"] > 0
    assert [entry["name"] for entry in found["rows"]] == ["image by image", "batched"]


def test_a_step_has_a_rate_in_each_precision():
    found = measured("step", "--images", 1, "--captions", 2, "--tokens", 4)
    assert [entry["name"] for entry in found["rows"]] == ["fp32", "bf16"]
    assert all(entry["captions_per_s"] > 0 for entry in found["rows"])


def test_a_peer_is_run_from_its_checkout_beside_ours(tmp_path):
    (tmp_path / "models.py").write_text(PEER)
    found = measured("peers", f"show-attend-tell={tmp_path}", "--images", 1, "--captions", 2, "--tokens", 4)
    names = ["show-attend-tell, theirs", "show-attend-tell, ours, fp32", "show-attend-tell, ours, bf16"]
    assert [entry["name"] for entry in found["rows"]] == names
    assert found["rows"][0]["ratio"] == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nobody=DIR", "no peer 'nobody'"),
        ("imgcap=missing", "can't be read"),
        ("att2in=missing", "can't be imported"),
        ("imgcap", "NAME=DIR"),
    ],
)
def test_a_wrong_checkout_is_one_line(given, told):
    result = bench("peers", given)
    assert result.returncode == 2 and told in result.stderr.splitlines()[-1]
