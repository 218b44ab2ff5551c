"""Scores of captions that came from elsewhere: a file of results against references, or against what scenes hold."""

import sys
from typing import Any

from imgcap.evaluation.coco_files import file_names, read_references, split_of_shards
from imgcap.evaluation.metrics.languages import tokeniser_name
from imgcap.evaluation.metrics.report_protocol import score_as_imgcap
from imgcap.evaluation.metrics.scorers import METRICS, check_images, score
from imgcap.evaluation.signature import signature
from imgcap.shards.scenes.counting import count_facts
from imgcap.text.tokeniser import Tokeniser


def score_results(
    hypotheses: dict[int, str],
    where: str,
    metrics: list[str] | None = None,
    language: str | None = None,
    protocol: str = "coco",
    subset: bool = False,
    shuffled: bool = False,
) -> dict[str, Any]:
    """Score results, with a signature, against a COCO file or the references of a split, `shards/NAME:SPLIT`.

    With `subset` images without a hypothesis are left out; `shuffled` is told in the signature. Raises UserError where
    images and captions don't match.
    """
    references = read_references(where)
    if subset:
        references = {image_id: group for image_id, group in references.items() if image_id in hypotheses}
    missing = len(references.keys() - hypotheses.keys())
    if missing:
        print(f"{missing} images of the references have no result; --subset leaves them out", file=sys.stderr)
    if hypotheses.keys() != references.keys():
        check_images(hypotheses, references, file_names(where))  # which names them
    how = {"results": "images shuffled"} if shuffled else {}
    counted = {"images": len(references), "references": sum(map(len, references.values())), **how}
    if language is None:
        reader = split_of_shards(where)
        language = reader.manifest.settings.language if reader else "en"
    if protocol == "imgcap":
        words = Tokeniser(language)
        scores = score_as_imgcap(hypotheses, references, words)
        return scores | {"signature": signature(words.name, **counted, protocol="imgcap")}
    scores = score(hypotheses, references, metrics or METRICS, language)
    return scores | {"signature": signature(tokeniser_name(language), **counted)}


def facts_of_results(hypotheses: dict[int, str]) -> dict[str, Any]:
    """Count the captions of demo scenes that are wholly true, and what the others claim wrongly."""
    facts = count_facts({"image_id": image_id, "caption": caption} for image_id, caption in hypotheses.items())
    return {
        "captions": facts.captions,
        "wholly_true": facts.wholly_true,
        "wholly_true_share": facts.wholly_true_share,
        "false_claims": {kind: f"{facts.false[kind]} of {count}" for kind, count in facts.claims.items() if count},
    }
