"""The figures of `bench.py gpu`: what is run for each, and in which order.

Dimensions: B images, P grid cells, E encoder width, L tokens of a found caption.
"""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from imgcap.config.model import EncoderConfig
from imgcap.config.training import TrainConfig
from imgcap.data.loader import READ_AHEAD, reading
from imgcap.models.decoders.build import build_decoder
from imgcap.models.encoders.base import Encoder
from imgcap.models.precision import autocast
from tools.bench import kernels
from tools.bench.counting import decoding_operations, encoder_operations, training_operations
from tools.bench.decoder import search_all
from tools.bench.engine import batch_of_features, decoder_engine, random_tokens, step_of
from tools.bench.gpu_timing import Bench, NotHere, Part, Work, entry, figure, peak_gib, processors
from tools.bench.peers import OURS, PEERS, Inputs, steps
from tools.bench.timing import Row, alternate, ceilings, row, timed, warm_up
from tools.bench.training import stepping

FLICKR30K = 29_000  # training images, of which an epoch's seconds are told
SMOOTHING, PENALTY = 0.1, 1.0
STEPS = 5  # times as many of a whole step in a repeat as of others: the loader's waits come seldom
EAGER, CAPTURED, COMPILED, AS_IT_COMES = "eager", "captured", "compiled", "as it comes"
WAYS: dict[str, dict[str, str]] = {  # of launching a step: keys of the section `train`
    EAGER: {"capture": "off", "compile": "off"},
    CAPTURED: {"capture": "on", "compile": "off"},
    COMPILED: {"capture": "off", "compile": "default"},
    AS_IT_COMES: {"capture": "auto", "compile": "auto"},
}


def keys_of(way: str, device: torch.device) -> dict[str, str]:
    """The keys of a way; those of a rehearsal where there is no GPU, and so nothing to capture, ask for it nowhere."""
    keys = WAYS[way]
    return keys if device.type == "cuda" or keys["capture"] != "on" else keys | {"capture": "auto"}


def parts(bench: Bench) -> list[Part]:
    """All that is measured, what tells most first."""
    small, middle, large = bench.sizes.images
    half = [precision for precision in ("bf16", "fp32") if precision in bench.precisions]
    rest = [precision for precision in bench.precisions if precision not in half]
    kinds = bench.sizes.kinds
    return [
        Part(("ceilings",), partial(_ceilings, bench)),
        *(_step(bench, images, "bf16", way) for images in (middle, small, large) for way in (CAPTURED, EAGER)),
        *(_step(bench, images, "fp32", CAPTURED) for images in (middle, small, large)),
        _whole_step(bench, "none", AS_IT_COMES),
        *(_search(bench, images, precision) for images in bench.sizes.searched for precision in half),
        _whole_step(bench, "all", AS_IT_COMES),
        *(_encoder(bench, bench.sizes.encoders[0], way) for way in (EAGER, COMPILED)),
        *(_step(bench, middle, "bf16", way, kind) for kind in kinds for way in (CAPTURED, EAGER)),
        *(_search(bench, images, precision, "transformer") for images in bench.sizes.searched for precision in half),
        *(_peer(bench, name) for name in PEERS),
        *(_kernel(bench, name, precision) for name in kernels.PARTS for precision in half),
        *(_step(bench, images, "fp32", EAGER) for images in (middle, small, large)),
        *(
            _step(bench, images, precision, way)
            for images in (middle, small, large)
            for precision in rest
            for way in (CAPTURED, EAGER)
        ),
        *(_encoder(bench, bench.sizes.encoders[1], way) for way in (EAGER, COMPILED)),
        *(_whole_step(bench, trained, EAGER) for trained in ("none", "all")),
        _step(bench, middle, "bf16", COMPILED),
    ]


def _ceilings(bench: Bench) -> Iterator[Row]:
    found = ceilings(bench.world.device)
    rates = {f"{precision}_tflop_per_s": round(rate / 1e12, 2) for precision, rate in found.products.items()}
    yield {"name": "ceilings", **rates, "tb_per_s": round(found.bandwidth / 1e12, 3)}


def _step(bench: Bench, images: int, precision: str, way: str, kind: str = "") -> Part:
    """The decoder's training step on ready features, through the project's engine."""
    sizes, device = bench.sizes, bench.world.device
    name = f"step, {kind + ', ' if kind else ''}{images} images, {precision}, {way}"

    def measure() -> Iterator[Row]:
        config = sizes.kinds[kind] if kind else sizes.decoder
        keys = keys_of(way, device)
        options = {"precision": precision, "label_smoothing": SMOOTHING, "attention_penalty": PENALTY, **keys}
        engine = decoder_engine(config, TrainConfig(**options), bench.world, sizes.vocabulary, sizes.width)
        features_BPE = torch.randn(images, sizes.cells, sizes.width, device=device).relu()
        tokens_BKT = random_tokens((images, sizes.captions, sizes.tokens), sizes.vocabulary, device)
        step = step_of(engine, batch_of_features(features_BPE, tokens_BKT))
        rows = images * sizes.captions * (sizes.tokens - 1)
        operations = training_operations(config, sizes.vocabulary, sizes.cells, sizes.width, images, rows)
        # Of AdamW, the fewest: weight, gradient and two moments are read, and three of them written.
        moved = 7.0 * sum(parameter.nbytes for parameter in engine.raw_model.decoder.parameters())
        work = Work(images, "images", precision, operations, moved, sizes.steps)
        yield figure(bench, name, step, work, images=images, captions=sizes.captions, tokens=sizes.tokens, **keys)

    return Part((name,), measure, 150.0 if way == COMPILED else 60.0)


def _encoder(bench: Bench, encoder: str, way: str) -> Part:
    """The frozen encoder alone, in bf16."""
    sizes, device = bench.sizes, bench.world.device
    name = f"frozen {encoder}, {sizes.encoded} images, bf16, {way}"

    def measure() -> Iterator[Row]:
        with torch.device(device):
            module = Encoder(EncoderConfig(name=encoder, weights=None))
        shape = (sizes.encoded, 3, sizes.image_size, sizes.image_size)
        images_BCHW = torch.randint(256, shape, dtype=torch.uint8, device=device)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        forward = torch.compile(module.forward, dynamic=False) if way == COMPILED else module.forward

        def encode() -> None:
            with torch.no_grad(), autocast(device, "bf16"):
                module.fold()
                forward(images_BCHW)

        operations = sizes.encoded * encoder_operations(encoder, sizes.image_size)
        work = Work(sizes.encoded, "images", "bf16", operations, calls=sizes.steps)
        yield figure(bench, name, encode, work, image_size=sizes.image_size)

    return Part((name,), measure)


def _whole_step(bench: Bench, trained: str, way: str) -> Part:
    """The trainer's own step from shards in the page cache, in bf16; `trained` is `model.encoder.train`."""
    sizes, encoder = bench.sizes, bench.sizes.encoders[0]
    what = f"frozen {encoder}" if trained == "none" else f"all of {encoder} trains"
    name = f"whole step, {what}, {sizes.trained} images, bf16, {way}"
    workers = max(processors() - 2, 1)
    given = {
        "data": {"image_size": sizes.image_size, "max_tokens": sizes.tokens - 2, "workers": workers},
        "model.encoder": {"name": encoder, "weights": "none", "train": trained},
        "model.decoder": sizes.decoder.model_dump(),
        "train": {"global_batch": sizes.trained, "precision": "bf16", "attention_penalty": PENALTY, **WAYS[way]},
        "train.label_smoothing": SMOOTHING,
        "eval.metrics": [],
    }
    device, calls = bench.world.device, STEPS * sizes.steps

    def measure() -> Iterator[Row]:
        shards = bench.shards()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
            trainer = stepping(None, [*overrides, f"data.shards={shards}"], folder, bench.world)
            feed = trainer.feed(stack.enter_context(reading(trainer.loader)))
            step = partial(trainer.train_step, feed)
            once = timed(step, device)
            warm = [once() for _ in range(warm_up(device))]
            for _ in range(READ_AHEAD * workers):  # what the workers had ready while nothing took it
                step()
            once()
            trainer.meter.restart_clock()
            block = timed(lambda: [step() for _ in range(calls)], device)
            seconds = [block() / calls for _ in range(bench.repeats)]
            waited = trainer.meter.waited / (sum(seconds) * calls)
        module, rows = trainer.engine.raw_model.encoder, sizes.trained * sizes.captions * (sizes.tokens - 1)
        shape = (sizes.vocabulary, math.prod(module.grid(sizes.image_size)), module.width)
        operations = training_operations(sizes.decoder, *shape, sizes.trained, rows)
        times = 1 if trained == "none" else 3
        operations += times * sizes.trained * encoder_operations(encoder, sizes.image_size)
        found = entry(bench, name, seconds, Work(sizes.trained, "images", "bf16", operations))
        yield found | {
            "flickr30k_epoch_s": round(FLICKR30K / found["images_per_s"], 2),
            "waiting_for_loader": round(waited, 3),
            "first_s": round(warm[0], 2),
            "warm_s": round(sum(warm), 2),
            "peak_gib": peak_gib(device),
            "workers": workers,
            **WAYS[way],
        }

    return Part((name,), measure, 120.0)


def _search(bench: Bench, images: int, precision: str, kind: str = "") -> Part:
    """Beam search to the last step, on ready features, and how many captions are those of the plain float32 search."""
    sizes, device = bench.sizes, bench.world.device
    name = f"beam {sizes.beam}, {kind + ', ' if kind else ''}{images} images, {precision}"

    def measure() -> Iterator[Row]:
        torch.manual_seed(0)
        config = sizes.kinds[kind] if kind else sizes.decoder
        decoder = build_decoder(config, sizes.vocabulary, sizes.width).to(device).eval()
        features_BPE = torch.randn(images, sizes.cells, sizes.width, device=device).relu()
        find = partial(search_all, decoder, features_BPE, precision, sizes.beam, sizes.words)
        with kernels.reference():
            expected_BL = search_all(decoder, features_BPE, "fp32", sizes.beam, sizes.words)
        rows, shape = images * sizes.beam * (sizes.words + 1), (sizes.vocabulary, sizes.cells, sizes.width)
        work = Work(images, "captions", precision, decoding_operations(config, *shape, images, rows))
        found = figure(bench, name, find, work, steps=sizes.words + 1)
        same = int((find() == expected_BL).all(1).sum())  # by the graphs, where there are any
        yield found | {"same_captions": f"{same} of {images}"}

    return Part((name,), measure)


def _kernel(bench: Bench, name: str, precision: str) -> Part:
    """A part of the step, forward and backward, by the reference and by the kernels, and how far apart they are."""
    sizes, device = bench.sizes, bench.world.device
    names = tuple(f"{name}, {precision}, {way}" for way in ("reference", "kernels"))

    def measure() -> Iterator[Row]:
        if not kernels.are_here():
            raise NotHere(f"there are no kernels beside the reference ({kernels.KERNELS})")
        shape = (sizes.images[1], sizes.captions, sizes.tokens, sizes.cells, sizes.width, sizes.vocabulary)
        run = kernels.run_of(name, kernels.Size(*shape, sizes.decoder), device, precision)
        work = Work(sizes.images[1], "images", precision, run.operations)
        with kernels.reference():
            expected = run.results()
            plain = figure(bench, names[0], run.results, work)
        yield plain
        apart = kernels.distance(run.results(), expected)
        yield figure(bench, names[1], run.results, work, distance=float(f"{apart:.3g}"))

    return Part(names, measure)


def _peer(bench: Bench, name: str) -> Part:
    """Another project's training step, in turns with ours in two precisions, as a run on this device takes it."""
    sizes, device = bench.sizes, bench.world.device
    names = tuple(f"{name}, {run}" for run in ("theirs", *(f"ours, {precision}" for precision in OURS)))

    def measure() -> Iterator[Row]:
        checkout = bench.checkouts and bench.checkouts / name
        if not checkout or not checkout.is_dir():
            raise NotHere(f"no checkout {checkout or name} was given by --checkouts")
        inputs = Inputs(sizes.peers, 5, 22, device)
        runs = {run: timed(step, device) for run, step in steps(name, checkout, inputs, bench.world).items()}
        seconds = alternate(runs, bench.repeats, warm_up(device))
        for run, values in seconds.items():
            captions = len(inputs.tokens_NT)
            found = row(f"{name}, {run}", values, captions, "captions", seconds["theirs"])
            yield found | {"peak_gib": peak_gib(device)}

    return Part(names, measure, 90.0)
