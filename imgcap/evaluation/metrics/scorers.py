"""The scores of captions, equal to those of pycocoevalcap called directly, to the last digit."""

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from pycocoevalcap.rouge.rouge import Rouge

from imgcap.errors import UserError
from imgcap.evaluation.metrics.bleu import bleu
from imgcap.evaluation.metrics.cider import CiderReferences
from imgcap.evaluation.metrics.languages import ENGLISH, fitting, tokenise_in, tokeniser_name
from imgcap.evaluation.metrics.meteor import PARAPHRASES, meteor
from imgcap.evaluation.metrics.paraphrases import filter_aside
from imgcap.evaluation.metrics.spice import lacking, spice
from imgcap.files.kept import cached, content_hash

METRICS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")
ALL_METRICS = (*METRICS, "SPICE")
FORMAT = f"1 {version('pycocoevalcap')}".encode()  # of what is cached; part of its name

Captions = dict[int, list[str]]


class References:
    """Tokenised references, and what METEOR and CIDEr make of them alone: each computed once, when it is asked for.

    The tokens and METEOR's table are kept on disk by the hash of the captions.
    """

    def __init__(self, text: str, language: str):
        """Take the references as JSON: a list of [image, captions]."""
        self._hash = content_hash(FORMAT, text.encode(), tokeniser_name(language).encode())
        self._text, self._language = text, language

    @cached_property
    def tokens(self) -> Captions:
        def tokenised() -> bytes:
            return json.dumps(list(tokenise_in(self._language, dict(json.loads(self._text))).items())).encode()

        return dict(json.loads(cached(f"references-{self._hash}.json", tokenised)))

    @cached_property
    def cider(self) -> CiderReferences:
        return CiderReferences(self.tokens)

    @cached_property
    def paraphrases(self) -> bytes:
        captions = [caption for group in self.tokens.values() for caption in group]
        hashed = content_hash(FORMAT, self._hash.encode(), str(PARAPHRASES.stat().st_size).encode())
        return cached(f"paraphrases-{hashed}.gz", lambda: filter_aside(PARAPHRASES, captions))


@lru_cache(maxsize=2)
def _prepared(text: str, language: str) -> References:
    """References prepared for scoring, and kept: a run evaluates the same split again and again."""
    return References(text, language)


def forget_references() -> None:
    """Forget prepared references, as in a new process: only what is on disk is kept."""
    _prepared.cache_clear()


class Scored(NamedTuple):
    """Scores of captions, each image's own in the order of the references, and what BLEU counts of it."""

    scores: dict[str, float]
    images: dict[int, dict[str, float]]  # BLEU-4, ROUGE-L and CIDEr: those that were asked for
    counts_NS: np.ndarray  # see imgcap.evaluation.metrics.bleu; empty where BLEU was not asked for


def score(
    hypotheses: Mapping[int, str],
    references: Mapping[int, list[str]],
    metrics: Collection[str] = METRICS,
    language: str = ENGLISH,
) -> dict[str, float]:
    """Score captions, without the images' own scores; see `score_images`."""
    return score_images(hypotheses, references, metrics, language).scores


def score_images(
    hypotheses: Mapping[int, str],
    references: Mapping[int, list[str]],
    metrics: Collection[str] = METRICS,
    language: str = ENGLISH,
) -> Scored:
    """Score one hypothesis an image against its references; images go in the order of `references`.

    The scores are BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr and SPICE, those asked for, in this order; one that does not
    fit the language, or whose programs are not here, is left out, and a line on stderr says so. Raises UserError when
    the two sides name different images or an image has no reference. CIDEr weighs words by the number of images that
    use them, so that of a single image is 0; a line on stderr says so.
    """
    assert set(metrics) <= set(ALL_METRICS), f"unknown metrics {set(metrics) - set(ALL_METRICS)}"
    check_images(hypotheses, references)
    metrics = _that_can_run(fitting(metrics, language))
    if not metrics:
        return Scored({}, {image_id: {} for image_id in references}, np.zeros((0, 0), np.int64))
    if "CIDEr" in metrics and len(references) == 1:
        print("warning: CIDEr of a single image is always 0; score more images", file=sys.stderr, flush=True)
    references = dict(references)
    prepared = _prepared(json.dumps(list(references.items())), language)
    with ThreadPoolExecutor(max_workers=3) as pool:  # Java's processes beside Python's own work
        tokens = pool.submit(lambda: prepared.tokens)
        ordered = {image_id: [hypotheses[image_id]] for image_id in references}
        hypothesis_tokens, reference_tokens = tokenise_in(language, ordered), tokens.result()
        aside = {}
        if "METEOR" in metrics:
            aside["METEOR"] = pool.submit(_meteor, prepared, hypothesis_tokens)
        if "SPICE" in metrics:
            aside["SPICE"] = pool.submit(spice, reference_tokens, hypothesis_tokens)
        scored = _score_in_python(prepared, hypothesis_tokens, metrics)
        scores = scored.scores | {name: score.result() for name, score in aside.items()}
    order = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE"]
    return scored._replace(scores={name: scores[name] for name in order if name in scores})


def _that_can_run(metrics: Collection[str]) -> Collection[str]:
    reason = lacking() if "SPICE" in metrics else None
    if reason is None:
        return metrics
    print(f"SPICE is left out: {reason}", file=sys.stderr, flush=True)
    return [name for name in metrics if name != "SPICE"]


def check_images(
    hypotheses: Mapping[int, str], references: Mapping[int, list[str]], names: Mapping[int, str] | None = None
) -> None:
    """Raise UserError unless both sides are of the same images, each with a reference; `names` are of their files."""
    names = names or {}
    if not references:
        raise UserError("there is no image to score; name a split or references that hold some")
    unknown, missing = hypotheses.keys() - references.keys(), references.keys() - hypotheses.keys()
    for ids, fault in ((unknown, "captions are of images without references"), (missing, "images have no caption")):
        if ids:
            examples = ", ".join(names.get(image_id, str(image_id)) for image_id in sorted(ids)[:3])
            raise UserError(f"{len(ids)} {fault}, for example {examples}; give both sides the same images")
    bare = [image_id for image_id, group in references.items() if not group]
    if bare:
        example = names.get(bare[0], bare[0])
        raise UserError(f"{len(bare)} images have no reference, for example {example}; leave them out")


def _score_in_python(references: References, hypotheses: Captions, metrics: Collection[str]) -> Scored:
    scores: dict[str, float] = {}
    images: dict[int, dict[str, float]] = {image_id: {} for image_id in references.tokens}
    counts_NS = np.zeros((0, 0), np.int64)

    def note(name: str, values: Iterable[float]) -> None:
        for image, value in zip(images.values(), values, strict=True):
            image[name] = float(value)

    if "BLEU" in metrics:
        corpus, each, counts_NS = bleu(references.tokens, hypotheses)
        scores |= {f"BLEU-{n}": value for n, value in enumerate(corpus, start=1)}
        note("BLEU-4", each)
    if "ROUGE-L" in metrics:
        mean, each_N = Rouge().compute_score(references.tokens, hypotheses)
        scores["ROUGE-L"] = float(mean)
        note("ROUGE-L", each_N)
    if "CIDEr" in metrics:
        each_N = references.cider.scores(hypotheses)
        scores["CIDEr"] = float(np.mean(each_N))
        note("CIDEr", each_N)
    return Scored(scores, images, counts_NS)


def _meteor(references: References, hypotheses: Captions) -> float:
    with TemporaryDirectory() as folder:
        table = Path(folder) / "paraphrases.gz"
        table.write_bytes(references.paraphrases)
        return meteor(references.tokens, hypotheses, table)
