"""All metrics beside pycocoevalcap called directly: the first caption of each image against its others."""

import argparse
import os
import shutil
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from imgcap.errors import UserError
from imgcap.evaluation.metrics.ptb import find_java
from imgcap.evaluation.metrics.scorers import forget_references, score
from imgcap.shards.reader import ShardReader
from tools.bench.timing import alternate, row, timed

OPTIONS = {"split": "train", "images": 5000}


def bench_scoring(arguments: argparse.Namespace) -> dict[str, Any]:
    """All metrics against pycocoevalcap, and whether the scores are equal."""
    reader = ShardReader(arguments.shards, arguments.split)
    samples = (reader.read(index) for index in range(min(len(reader), arguments.images)))
    captions = {sample.image_id: sample.captions for sample in samples if len(sample.captions) > 1}
    if not captions:
        raise UserError(f"{arguments.shards} has no image of two captions in split {arguments.split}; name another")
    hypotheses = {image_id: group[0] for image_id, group in captions.items()}
    references = {image_id: group[1:] for image_id, group in captions.items()}
    found: list[dict[str, float]] = []

    def ours() -> None:
        forget_references()  # as in a new process
        found.append(score(hypotheses, references))

    path = os.path.dirname(find_java()) + os.pathsep + os.environ["PATH"]
    with TemporaryDirectory() as folder, patch.dict(os.environ, {"IMGCAP_CACHE": folder, "PATH": path}):

        def first() -> None:
            shutil.rmtree(Path(folder) / "scoring", ignore_errors=True)
            ours()

        runs = {
            "pycocoevalcap": lambda: found.append(usual_scores(hypotheses, references)),
            "first run": first,
            "second run": ours,
            "again in one process": lambda: found.append(score(hypotheses, references)),
        }
        seconds = alternate({name: timed(run, torch.device("cpu")) for name, run in runs.items()}, arguments.repeats)
    theirs = statistics.median(seconds["pycocoevalcap"])
    shares = {name: round(statistics.median(values) / theirs, 3) for name, values in seconds.items()}
    rows = [row(name, values, len(captions), "images") | {"share": shares[name]} for name, values in seconds.items()]
    return {"rows": rows, "equal": all(scores == found[0] for scores in found), "scores": found[0]}


def usual_scores(hypotheses: dict[int, str], references: dict[int, list[str]]) -> dict[str, float]:
    """Score as pycocoevalcap's own COCOEvalCap does."""
    tokeniser = PTBTokenizer()
    gts = tokeniser.tokenize({i: [{"caption": caption} for caption in group] for i, group in references.items()})
    res = tokeniser.tokenize({i: [{"caption": hypotheses[i]}] for i in references})
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    scores = {f"BLEU-{n}": value for n, value in enumerate(bleu, start=1)}
    for name, scorer in (("METEOR", Meteor), ("ROUGE-L", Rouge), ("CIDEr", Cider)):
        scores[name] = float(scorer().compute_score(gts, res)[0])
    return scores
