"""The scores of captions, equal to those of pycocoevalcap called directly, to the last digit."""

import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import METEOR_JAR, Meteor
from pycocoevalcap.rouge.rouge import Rouge

from imgcap.errors import UserError
from imgcap.evaluation.ptb import find_java, tokenise

METRICS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")

Captions = dict[int, list[str]]


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
    wrapped = {image_id: [hypotheses[image_id]] for image_id in references}
    with ThreadPoolExecutor(max_workers=2) as pool:  # two Java processes at a time
        first = pool.submit(tokenise, dict(references))
        hypothesis_tokens, reference_tokens = tokenise(wrapped), first.result()
        meteor = pool.submit(_meteor, reference_tokens, hypothesis_tokens) if "METEOR" in metrics else None
        scores = _python_scores(reference_tokens, hypothesis_tokens, metrics)
        if meteor is not None:
            scores["METEOR"] = meteor.result()
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


def _python_scores(references: Captions, hypotheses: Captions, metrics: Collection[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    if "BLEU" in metrics:
        bleu, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)  # verbose prints to stdout
        scores |= {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)}
    if "ROUGE-L" in metrics:
        scores["ROUGE-L"] = float(Rouge().compute_score(references, hypotheses)[0])
    if "CIDEr" in metrics:
        scores["CIDEr"] = float(Cider().compute_score(references, hypotheses)[0])
    return scores


class _Meteor(Meteor):
    """pycocoevalcap's METEOR with the Java we choose, closed when done, its unread stderr discarded."""

    def __init__(self) -> None:
        package = util.find_spec("pycocoevalcap.meteor")
        assert package is not None and package.submodule_search_locations
        command = [find_java(), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", METEOR_JAR, "-", "-", "-stdio", "-l", "en"]
        self.lock = threading.Lock()
        self.meteor_p = subprocess.Popen(
            [*command, "-norm"],
            cwd=Path(package.submodule_search_locations[0]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> "_Meteor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.meteor_p.kill()
        self.meteor_p.communicate()

    def __del__(self) -> None:
        """Nothing: the parent's would wait for a lock that an error may have left closed."""


def _meteor(references: Captions, hypotheses: Captions) -> float:
    with _Meteor() as meteor:
        try:
            value, _ = meteor.compute_score(references, hypotheses)
        except (OSError, ValueError) as error:  # it went away, or answered with no number
            raise RuntimeError(f"METEOR's Java process failed: {error}") from error
    return float(value)
