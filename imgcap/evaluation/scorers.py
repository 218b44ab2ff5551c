"""The scores of captions, equal to those of pycocoevalcap called directly, to the last digit."""

import json
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge

from imgcap.errors import UserError
from imgcap.evaluation.cache import cached, content_hash
from imgcap.evaluation.cider import CiderReferences
from imgcap.evaluation.meteor import PARAPHRASES, meteor, package_folder
from imgcap.evaluation.paraphrases import filter_aside
from imgcap.evaluation.ptb import tokenise

METRICS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")
FORMAT = f"1 {version('pycocoevalcap')}".encode()  # of what is cached; part of its name

Captions = dict[int, list[str]]


class References:
    """Tokenised references, and what METEOR and CIDEr make of them alone: each computed once, when it is asked for.

    The tokens and METEOR's table are kept on disk by the hash of the captions.
    """

    def __init__(self, text: str):
        """From the references as JSON: a list of [image, captions]."""
        self._hash = content_hash(FORMAT, text.encode())
        self._text = text

    @cached_property
    def tokens(self) -> Captions:
        def tokenised() -> bytes:
            return json.dumps(list(tokenise(dict(json.loads(self._text))).items())).encode()

        return dict(json.loads(cached(f"references-{self._hash}.json", tokenised)))

    @cached_property
    def cider(self) -> CiderReferences:
        return CiderReferences(self.tokens)

    @cached_property
    def paraphrases(self) -> bytes:
        table = package_folder() / PARAPHRASES
        captions = [caption for group in self.tokens.values() for caption in group]
        name = f"paraphrases-{content_hash(FORMAT, self._hash.encode(), str(table.stat().st_size).encode())}.gz"
        return cached(name, lambda: filter_aside(table, captions))


@lru_cache(maxsize=2)
def _prepared(text: str) -> References:
    """A run evaluates the same split again and again: what was prepared stays."""
    return References(text)


def forget_references() -> None:
    """As a new process begins: only what is on disk is kept."""
    _prepared.cache_clear()


def score(
    hypotheses: Mapping[int, str], references: Mapping[int, list[str]], metrics: Collection[str] = METRICS
) -> dict[str, float]:
    """Score one hypothesis an image against its references; images go in the order of `references`.

    Returns BLEU-1 to BLEU-4, METEOR, ROUGE-L and CIDEr, those asked for, in this order. Raises UserError
    when the two sides name different images or an image has no reference. CIDEr weighs words by the number
    of images that use them, so that of a single image is 0; a line on stderr says so.
    """
    assert set(metrics) <= set(METRICS), f"unknown metrics {set(metrics) - set(METRICS)}"
    _check_images(hypotheses, references)
    if not metrics:
        return {}
    if "CIDEr" in metrics and len(references) == 1:
        print("warning: CIDEr of a single image is always 0; score more images", file=sys.stderr, flush=True)
    references = dict(references)
    prepared = _prepared(json.dumps(list(references.items())))
    with ThreadPoolExecutor(max_workers=2) as pool:  # Java's processes beside Python's own work
        tokens = pool.submit(lambda: prepared.tokens)
        hypothesis_tokens, _ = tokenise({image_id: [hypotheses[image_id]] for image_id in references}), tokens.result()
        meteor_score = pool.submit(_meteor, prepared, hypothesis_tokens) if "METEOR" in metrics else None
        scores = _python_scores(prepared, hypothesis_tokens, metrics)
        if meteor_score is not None:
            scores["METEOR"] = meteor_score.result()
    order = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    return {name: scores[name] for name in order if name in scores}


def _check_images(hypotheses: Mapping[int, str], references: Mapping[int, list[str]]) -> None:
    if not references:
        raise UserError("there is no image to score; name a split or references that hold some")
    unknown, missing = hypotheses.keys() - references.keys(), references.keys() - hypotheses.keys()
    for ids, fault in ((unknown, "captions are of images without references"), (missing, "images have no caption")):
        if ids:
            examples = ", ".join(str(image_id) for image_id in sorted(ids)[:3])
            raise UserError(f"{len(ids)} {fault}, for example {examples}; give both sides the same images")
    bare = [image_id for image_id, group in references.items() if not group]
    if bare:
        raise UserError(f"{len(bare)} images have no reference, for example {bare[0]}; leave them out")


def _python_scores(references: References, hypotheses: Captions, metrics: Collection[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    if "BLEU" in metrics:
        bleu, _ = Bleu(4).compute_score(references.tokens, hypotheses, verbose=0)  # verbose prints to stdout
        scores |= {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)}
    if "ROUGE-L" in metrics:
        scores["ROUGE-L"] = float(Rouge().compute_score(references.tokens, hypotheses)[0])
    if "CIDEr" in metrics:
        scores["CIDEr"] = references.cider.score(hypotheses)
    return scores


def _meteor(references: References, hypotheses: Captions) -> float:
    with TemporaryDirectory() as folder:
        table = Path(folder) / "paraphrases.gz"
        table.write_bytes(references.paraphrases)
        return meteor(references.tokens, hypotheses, table)
