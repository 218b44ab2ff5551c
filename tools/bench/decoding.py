"""What the options of decoding cost: each way beside plain beam search, all to the last step."""

import argparse
import statistics
from functools import partial
from typing import Any

import torch

from imgcap.config.decoding import DecodeOptions
from imgcap.decoding.generate import generate
from imgcap.models.precision import set_float32_matmul
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import EOS, SPECIAL_TOKENS
from tools.bench.decoder import CELLS, VOCABULARY, WIDTH, random_decoder
from tools.bench.timing import alternate, row, timed

OPTIONS = {"images": 32, "beam": 5, "steps": 20}


def ways(beam: int) -> dict[str, DecodeOptions]:
    return {
        "beam": DecodeOptions(beam=beam),
        "beam, min_length 5": DecodeOptions(beam=beam, min_length=5),
        "beam, no_repeat_ngram 2": DecodeOptions(beam=beam, no_repeat_ngram=2),
        "beam, 1 required word": DecodeOptions(beam=beam, required=("word-0",)),
        "beam, 3 required words": DecodeOptions(beam=beam, required=("word-0", "word-1", "word-2")),
        "diverse": DecodeOptions(method="diverse", beam=beam),
        "greedy": DecodeOptions(method="greedy"),
        "sample": DecodeOptions(method="sample", samples=beam),
        "sample, top_k 50": DecodeOptions(method="sample", samples=beam, top_k=50),
        "sample, top_p 0.9": DecodeOptions(method="sample", samples=beam, top_p=0.9),
    }


def bench_decoding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every option of decoding beside plain beam search, in float32.

    The weights are random, and no caption wants to end. The ensemble is of two decoders of one size.
    """
    device, beam = arguments.device, arguments.beam
    set_float32_matmul("fp32")
    decoder = random_decoder(device).eval()
    with torch.no_grad():
        decoder.output.bias[EOS] -= 1000.0
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    words = {f"word-{number}": 1 for number in range(VOCABULARY - len(SPECIAL_TOKENS))}
    vocabulary, length = Vocabulary.build(words), arguments.steps - 1  # the last step is <eos>
    runs = {
        name: partial(generate, [decoder], [features_BPE], options, vocabulary, length)
        for name, options in ways(beam).items()
    }
    both = [decoder] * 2, [features_BPE] * 2
    runs["beam, ensemble of 2"] = partial(generate, *both, DecodeOptions(beam=beam), vocabulary, length)
    seconds = alternate({name: timed(run, device) for name, run in runs.items()}, arguments.repeats)
    plain = statistics.median(seconds["beam"])
    rows = [
        row(name, values, arguments.images, "images") | {"of_beam": round(statistics.median(values) / plain, 2)}
        for name, values in seconds.items()
    ]
    return {"rows": rows}
