"""Score captions in COCO's result format.

    python tools/score.py --references COCO_CAPTIONS.json --results RESULTS.json

The table goes to stderr; the last line of stdout is the scores as JSON.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imgcap.errors import UserError, exits_cleanly
from imgcap.evaluation.coco_files import read_references, read_results, split_of_shards, with_other_images
from imgcap.evaluation.metrics.languages import tokeniser_name
from imgcap.evaluation.metrics.report_protocol import score_as_imgcap
from imgcap.evaluation.metrics.scorers import ALL_METRICS, METRICS, score
from imgcap.evaluation.results import write_json
from imgcap.evaluation.signature import signature
from imgcap.shards.scenes.counting import count_facts
from imgcap.text.tokeniser import Tokeniser


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", help="captions_*.json of COCO, or a split of a shard set: shards/NAME:SPLIT")
    parser.add_argument("--results", required=True, help="JSON list of {image_id, caption}")
    parser.add_argument("--out", type=Path, help="also write the scores to this file")
    parser.add_argument("--metrics", nargs="+", choices=ALL_METRICS, help="default: all but SPICE")
    parser.add_argument("--language", help="of the captions, as spaCy names it (default: of the shard set, else en)")
    parser.add_argument(
        "--protocol",
        choices=("coco", "imgcap"),
        default="coco",
        help="imgcap: BLEU and CIDEr as the ImgCap report counts",
    )
    parser.add_argument("--subset", action="store_true", help="score only the images that have a result")
    parser.add_argument("--facts", action="store_true", help="count the wholly true captions of demo scenes")
    parser.add_argument("--shuffle-images", type=int, metavar="SEED", help="give each image another one's caption")
    arguments = parser.parse_args()
    if not arguments.references and not arguments.facts:
        parser.error("give --references, or --facts for captions of demo scenes")
    if arguments.protocol == "imgcap" and arguments.metrics:
        parser.error("--protocol imgcap has BLEU and CIDEr; leave out --metrics")
    return arguments


def against_references(hypotheses: dict[int, str], arguments: argparse.Namespace) -> dict[str, Any]:
    references = read_references(arguments.references)
    if arguments.subset:
        references = {image_id: group for image_id, group in references.items() if image_id in hypotheses}
    missing = len(references.keys() - hypotheses.keys())
    if missing:
        print(f"{missing} images of the references have no result; --subset leaves them out", file=sys.stderr)
    total = sum(len(group) for group in references.values())
    how = {"results": "images shuffled"} if arguments.shuffle_images is not None else {}
    counted = {"images": len(references), "references": total, **how}
    language = arguments.language or language_of(arguments.references)
    if arguments.protocol == "imgcap":
        words = Tokeniser(language)
        scores = score_as_imgcap(hypotheses, references, words)
        return scores | {"signature": signature(words.name, **counted, protocol="imgcap")}
    scores = score(hypotheses, references, arguments.metrics or METRICS, language)
    return scores | {"signature": signature(tokeniser_name(language), **counted)}


def language_of(references: str) -> str:
    reader = split_of_shards(references)
    return reader.manifest.settings.language if reader else "en"


def against_facts(hypotheses: dict[int, str]) -> dict[str, Any]:
    facts = count_facts({"image_id": image_id, "caption": caption} for image_id, caption in hypotheses.items())
    return {
        "captions": facts.captions,
        "wholly_true": facts.wholly_true,
        "wholly_true_share": facts.wholly_true_share,
        "false_claims": {kind: f"{facts.false[kind]} of {count}" for kind, count in facts.claims.items() if count},
    }


def print_table(scores: dict[str, Any]) -> None:
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name:>18}  {shown}", file=sys.stderr, flush=True)


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    hypotheses = read_results(arguments.results)
    if not hypotheses:
        raise UserError(f"{arguments.results} holds no captions; name a result file that does")
    if arguments.shuffle_images is not None:
        hypotheses = with_other_images(hypotheses, arguments.shuffle_images)
    scores = against_references(hypotheses, arguments) if arguments.references else {}
    facts = against_facts(hypotheses) if arguments.facts else {}
    print_table(scores | facts)
    if facts:
        scores["facts"] = facts
    if arguments.out:
        write_json(arguments.out, scores)
    print(json.dumps(scores), flush=True)


if __name__ == "__main__":
    main()
