"""Measure what the documentation claims: `python tools/bench.py beam`, `step`, or `loader SHARDS`.

What is compared runs alternately in one process; shown are the median and the range. The table goes to
stderr, the same numbers as one line of JSON to stdout.

Dimensions: B images, K captions an image, T tokens, W beams, V vocabulary, P grid cells, E encoder width,
A attention width, H hidden width.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from imgcap.config.schema import DataConfig, DecoderConfig
from imgcap.data import Accumulation, Plan, PlanSampler, TrainDataset, augmented_image, decode, train_loader
from imgcap.decode import beam_search
from imgcap.engine.precision import autocast, set_float32_matmul
from imgcap.errors import UserError, exits_cleanly
from imgcap.models import build_decoder
from imgcap.models.decoders import AttentionLSTMDecoder
from imgcap.optim import caption_loss
from imgcap.shards import ShardReader
from imgcap.text import Vocabulary
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS

CELLS, WIDTH, VOCABULARY = 49, 2048, 4096  # ResNet-50 at 224 pixels, a Flickr30k vocabulary
DECODER = DecoderConfig()  # Show, Attend and Tell: 512, 512, 512, gate, mean initial state
NEVER = (PAD, SOS, EOS)  # random weights rarely end a caption: both searches go to the last step

Row = dict[str, Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    measures = parser.add_subparsers(dest="measure", required=True)
    beam = measures.add_parser("beam", help="batched beam search against one image at a time")
    beam.add_argument("--images", type=int, default=64)
    beam.add_argument("--beam", type=int, default=5)
    beam.add_argument("--steps", type=int, default=20)
    step = measures.add_parser("step", help="the decoder's training step in each precision")
    step.add_argument("--images", type=int, default=32)
    step.add_argument("--captions", type=int, default=5)
    step.add_argument("--tokens", type=int, default=22)
    loader = measures.add_parser("loader", help="the loader against a bare loop in as many processes")
    loader.add_argument("shards", type=Path)
    loader.add_argument("--split", default="train")
    loader.add_argument("--workers", type=int, default=2)
    loader.add_argument("--images", type=int, default=32, help="of a batch")
    loader.add_argument("--image-size", type=int, default=224)
    loader.add_argument("--augment", choices=("off", "light", "strong"), default="light")
    loader.add_argument("--samples", type=int, default=2000, help="of one repeat, over as many epochs as it takes")
    return parser.parse_args()


def timed(run: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """The same work, returning how many seconds it took."""

    def measured() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return measured


def alternate(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, in turns, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            value = run()
            if turn:
                seconds[name].append(value)
    return seconds


def row(name: str, seconds: list[float], items: int, unit: str) -> Row:
    rates = sorted(items / value for value in seconds)
    return {
        "name": name,
        "ms": round(1000 * statistics.median(seconds), 2),
        f"{unit}_per_s": round(statistics.median(rates), 2),
        "range": [round(rates[0], 2), round(rates[-1], 2)],
    }


def random_decoder(device: torch.device) -> AttentionLSTMDecoder:
    torch.manual_seed(0)
    decoder = build_decoder(DECODER, VOCABULARY, WIDTH)
    assert isinstance(decoder, AttentionLSTMDecoder)
    return decoder.to(device)


# ---------------------------------------------------------------------------------------------- beam


def bench_beam(arguments: argparse.Namespace) -> dict[str, Any]:
    device, words = torch.device(arguments.device), arguments.steps - 1  # the last step is <eos>
    decoder = random_decoder(device).eval()
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()

    def batched() -> torch.Tensor:
        return beam_search(decoder, features_BPE, arguments.beam, words, forbidden=NEVER).tokens_BL

    def image_by_image() -> torch.Tensor:
        found = [usual_search(decoder, features_PE, arguments.beam, words) for features_PE in features_BPE]
        return torch.stack(found)

    same = int((batched() == image_by_image()).all(1).sum())
    runs = {"image by image": timed(image_by_image, device), "batched": timed(batched, device)}
    seconds = alternate(runs, arguments.repeats)
    rows = [row(name, values, arguments.images, "captions") for name, values in seconds.items()]
    ratio = statistics.median(seconds["image by image"]) / statistics.median(seconds["batched"])
    return {"rows": rows, "ratio": round(ratio, 2), "same_captions": f"{same} of {arguments.images}"}


@torch.no_grad()
def usual_search(decoder: AttentionLSTMDecoder, features_PE: torch.Tensor, beam: int, max_length: int) -> torch.Tensor:
    """The search as tutorials write it: the beams of one image are a batch, each with a copy of the features.

    Every step projects the features anew, and ends before it knows the next. Returns the best caption's
    tokens, <eos> included.
    """
    features_WPE = features_PE.expand(beam, -1, -1).contiguous()
    mean_WE = features_WPE.mean(1)
    assert decoder.init_hidden is not None and decoder.init_cell is not None
    hidden_WH, cell_WH = decoder.init_hidden(mean_WE).tanh(), decoder.init_cell(mean_WE).tanh()
    sequences_WT = torch.full((beam, 1), SOS, device=features_PE.device)
    scores_W = torch.full((beam,), -torch.inf, device=features_PE.device)
    scores_W[0] = 0.0
    for _ in range(max_length):
        logits_WV, hidden_WH, cell_WH = usual_step(decoder, features_WPE, sequences_WT[:, -1], hidden_WH, cell_WH)
        candidates_WV = scores_W[:, None] + F.log_softmax(logits_WV, dim=1)
        candidates_WV[:, list(NEVER)] = -torch.inf
        scores_W, index_W = candidates_WV.view(-1).topk(beam)
        parents_W, words_W = index_W // logits_WV.shape[1], index_W % logits_WV.shape[1]
        sequences_WT = torch.cat([sequences_WT[parents_W], words_W[:, None]], dim=1)
        hidden_WH, cell_WH = hidden_WH[parents_W], cell_WH[parents_W]
    logits_WV, _, _ = usual_step(decoder, features_WPE, sequences_WT[:, -1], hidden_WH, cell_WH)
    scores_W = scores_W + F.log_softmax(logits_WV, dim=1)[:, EOS]
    return F.pad(sequences_WT[scores_W.argmax(), 1:], (0, 1), value=EOS)


def usual_step(
    decoder: AttentionLSTMDecoder,
    features_WPE: torch.Tensor,
    token_W: torch.Tensor,
    hidden_WH: torch.Tensor,
    cell_WH: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    attention = decoder.attention
    projected_WPA = attention.features(features_WPE)
    energy_WP1 = attention.score(torch.tanh(projected_WPA + attention.query(hidden_WH)[:, None]))
    context_WE = (features_WPE * energy_WP1.softmax(1)).sum(1)
    assert decoder.gate is not None
    context_WE = torch.sigmoid(decoder.gate(hidden_WH)) * context_WE
    cell = decoder.cells[0]
    hidden_WH, cell_WH = cell(torch.cat([decoder.embedding(token_W), context_WE], dim=1), (hidden_WH, cell_WH))
    return decoder.output(hidden_WH), hidden_WH, cell_WH


# ---------------------------------------------------------------------------------------------- step


def bench_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward, loss, backward and AdamW of the decoder on ready features."""
    device = torch.device(arguments.device)
    precisions = ["fp32", "bf16"] + (["tf32", "fp16"] if device.type == "cuda" else [])
    runs = {precision: timed(training_step(arguments, precision, device), device) for precision in precisions}
    seconds = alternate(runs, arguments.repeats)
    return {"rows": [row(name, values, arguments.images, "images") for name, values in seconds.items()]}


def training_step(arguments: argparse.Namespace, precision: str, device: torch.device) -> Callable[[], None]:
    decoder = random_decoder(device).train()
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=1e-4, fused=True)
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, device=device).relu()
    shape = (arguments.images, arguments.captions, arguments.tokens)
    tokens_BKT = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, shape, device=device)
    tokens_BKT[..., 0], tokens_BKT[..., -1] = SOS, EOS

    def step() -> None:
        set_float32_matmul(precision)
        with autocast(device, precision):
            logits_BKTV, _ = decoder.unroll(features_BPE, tokens_BKT)
            loss = caption_loss(logits_BKTV, tokens_BKT, label_smoothing=0.1)
        (loss.total / loss.tokens).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


# -------------------------------------------------------------------------------------------- loader


def bench_loader(arguments: argparse.Namespace) -> dict[str, Any]:
    """Samples a second of the training loader, and of processes that only read, decode and transform."""
    reader = ShardReader(arguments.shards, arguments.split)
    counts = json.loads((arguments.shards / "token_counts.json").read_text(encoding="utf-8"))["counts"]
    data = DataConfig(image_size=arguments.image_size, augment=arguments.augment, workers=arguments.workers)
    dataset = TrainDataset(reader, Vocabulary.build(counts), data, seed=0)
    plan = Plan(0, reader.shard_counts, arguments.images, reader.manifest_sha256)
    steps = -(-arguments.samples // arguments.images)
    waits: list[list[float]] = []
    runs = {
        "bare loop": lambda: bare_loop(reader, data, steps * arguments.images),
        "loader": lambda: whole_loader(dataset, plan, data.workers, steps, waits),
    }
    seconds = alternate(runs, arguments.repeats)
    rows = [row(name, values, steps * arguments.images, "samples") for name, values in seconds.items()]
    ratio = statistics.median(seconds["bare loop"]) / statistics.median(seconds["loader"])
    ends = [repeat[step] for repeat in waits for step in range(plan.steps_per_epoch, steps, plan.steps_per_epoch)]
    every = [wait for repeat in waits for wait in repeat[1:]]
    return {
        "rows": rows,
        "ratio": round(ratio, 3),
        "wait_ms": round(1000 * statistics.median(every), 2),
        "wait_at_epoch_end_ms": round(1000 * statistics.median(ends), 2) if ends else None,
    }


def bare_loop(reader: ShardReader, data: DataConfig, samples: int) -> float:
    """Seconds that `workers` processes take to read, decode and transform so many samples among them."""
    start = time.perf_counter()
    share = -(-samples // data.workers)
    processes = [
        multiprocessing.get_context("fork").Process(target=read_samples, args=(reader, data, first, share))
        for first in range(0, samples, share)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - start


def read_samples(reader: ShardReader, data: DataConfig, first: int, count: int) -> None:
    torch.set_num_threads(1)
    size = data.image_size
    for position in range(first, first + count):
        index = position % len(reader)
        jpeg = reader.read(index).jpeg
        augmented_image(decode(jpeg, size), size, data.augment, (0, position // len(reader), index))


def whole_loader(dataset: TrainDataset, plan: Plan, workers: int, steps: int, waits: list[list[float]]) -> float:
    """Seconds from asking for the first batch to having the last; `waits` gets the wait for each batch."""
    sampler = PlanSampler(plan, 0, 1, Accumulation(plan.global_batch, 1), 0, steps)
    start = last = time.perf_counter()
    waits.append([])
    for _ in train_loader(dataset, sampler, workers, pin_memory=False):
        now = time.perf_counter()
        waits[-1].append(now - last)
        last = now
    return last - start


# ---------------------------------------------------------------------------------------------- main


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def print_table(result: dict[str, Any]) -> None:
    for entry in result["rows"]:
        print("  ".join(f"{key} {value}" for key, value in entry.items()), file=sys.stderr)
    print("  ".join(f"{key}: {value}" for key, value in result.items() if key != "rows"), file=sys.stderr, flush=True)


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    if arguments.measure == "loader" and arguments.workers < 1:
        raise UserError("the loader is compared with processes of the same number; give --workers 1 or more")
    measure = {"beam": bench_beam, "step": bench_step, "loader": bench_loader}[arguments.measure]
    result = {"measure": arguments.measure, "machine": machine(torch.device(arguments.device))} | measure(arguments)
    result["torch"] = torch.__version__
    print_table(result)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
