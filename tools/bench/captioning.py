"""Captions of pictures from Python: many in one call beside one call each."""

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from imgcap.captioning.captioner import PictureCaptioner
from imgcap.config.load import load_config
from imgcap.models.captioner import Captioner
from imgcap.models.trained import LoadedCaptioner, open_trained
from imgcap.text.vocabulary import Vocabulary
from tools.bench.timing import alternate, row, timed

WORDS = 4096
SIDE = 256  # pixels of the pictures
OPTIONS = {
    "model": (str, "run, artefact or hub name (default: random weights, which seldom end early)"),
    "encoder": ("resnet18", "of the random model"),
    "image-size": (112, "of the random model"),
    "images": 64,
    "beam": 5,
}


def bench_captioning(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pictures captioned in one call against a call each, decoded already; and what memory the process took."""
    captioner = PictureCaptioner(_loaded(arguments))
    random = np.random.default_rng(0)
    blots = [Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8)) for _ in range(arguments.images)]
    pictures = [blot.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for blot in blots]
    captioner.caption(pictures[:1], arguments.beam)
    loaded_mb = _peak_mb()

    def at_once() -> list[str]:
        return [found.text for found in captioner.caption(pictures, arguments.beam, batch_size=arguments.images)]

    def one_by_one() -> list[str]:
        return [captioner.caption(picture, arguments.beam)[0].text for picture in pictures]

    same = sum(left == right for left, right in zip(at_once(), one_by_one(), strict=True))
    runs = {name: timed(run, arguments.device) for name, run in (("one by one", one_by_one), ("at once", at_once))}
    seconds = alternate(runs, arguments.repeats)
    rows = [row(name, values, arguments.images, "captions") for name, values in seconds.items()]
    memory = {"peak_mb_of_one": loaded_mb, "peak_mb": _peak_mb()}
    return {"rows": rows, "ratio": round(rows[0]["ms"] / rows[1]["ms"], 2), "same": same, **memory}


def _loaded(arguments: argparse.Namespace) -> LoadedCaptioner:
    if arguments.model:
        return open_trained(arguments.model, arguments.device)
    encoder = f"model.encoder={{name: {arguments.encoder}, weights: none}}"
    config = load_config(None, [encoder, f"data.image_size={arguments.image_size}"])
    vocabulary = Vocabulary.build({f"word{number}": 1 for number in range(WORDS)})
    torch.manual_seed(0)
    model = Captioner(config.model, len(vocabulary)).to(arguments.device).eval()
    return LoadedCaptioner(model, vocabulary, config, Path(), 0)


def _peak_mb() -> float:
    """Memory of the machine that this process has had at most, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3), 1)
