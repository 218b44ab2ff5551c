"""Score captions in COCO's result format.

    imgcap score --references COCO_CAPTIONS.json --results RESULTS.json
    imgcap score --references shards/flickr30k:test --results RESULTS.json --protocol imgcap

The table goes to stderr; the last line of stdout is the scores as JSON.
"""

import argparse
import json
import sys

from imgcap.commands.arguments import LANGUAGE, new_file, parser_for, seed
from imgcap.config.evaluation import BY_CLIP
from imgcap.errors import UserError, exits_cleanly
from imgcap.evaluation.coco_files import read_results, with_other_images
from imgcap.evaluation.metrics.scorers import ALL_METRICS
from imgcap.evaluation.outside import facts_of_results, score_results
from imgcap.evaluation.results import write_json
from imgcap.evaluation.table import score_table


@exits_cleanly
def main() -> None:
    parser, report = parser_for(__doc__), "imgcap: BLEU and CIDEr as the ImgCap report counts"
    parser.add_argument("--references", help="captions_*.json of COCO, or a split of a shard set: shards/NAME:SPLIT")
    parser.add_argument("--results", required=True, help="JSON list of {image_id, caption}")
    parser.add_argument("--out", type=new_file, help="also write the scores to this file")
    parser.add_argument("--metrics", nargs="+", type=_of_words, choices=ALL_METRICS, help="default: all but SPICE")
    parser.add_argument("--language", help=LANGUAGE)
    parser.add_argument("--protocol", choices=("coco", "imgcap"), default="coco", help=report)
    parser.add_argument("--subset", action="store_true", help="score only the images that have a result")
    parser.add_argument("--facts", action="store_true", help="count the wholly true captions of demo scenes")
    parser.add_argument("--shuffle-images", type=seed, metavar="SEED", help="give each image another one's caption")
    arguments = parser.parse_args()
    if not arguments.references and not arguments.facts:
        parser.error("give --references, or --facts for captions of demo scenes")
    if arguments.protocol == "imgcap" and arguments.metrics:
        parser.error("--protocol imgcap has BLEU and CIDEr; leave out --metrics")
    hypotheses = read_results(arguments.results)
    if not hypotheses:
        raise UserError(f"{arguments.results} holds no captions; name a result file that does")
    shuffled = arguments.shuffle_images is not None
    if shuffled:
        hypotheses = with_other_images(hypotheses, arguments.shuffle_images)
    scores = {}
    if arguments.references:
        how = {name: getattr(arguments, name) for name in ("metrics", "language", "protocol", "subset")}
        scores = score_results(hypotheses, arguments.references, **how, shuffled=shuffled)
    facts = facts_of_results(hypotheses) if arguments.facts else {}
    print(score_table(scores | facts), file=sys.stderr, flush=True)
    if facts:
        scores["facts"] = facts
    if arguments.out:
        write_json(arguments.out, scores)
    print(json.dumps(scores), flush=True)


def _of_words(metric: str) -> str:
    """A metric that needs no pictures; a mistake where it is one of those that do."""
    if metric in BY_CLIP:
        raise argparse.ArgumentTypeError(
            f"{metric} needs the pictures too; imgcap evaluate computes it, with eval.metrics={metric} and "
            "eval.clip.weights=FILE"
        )
    return metric
