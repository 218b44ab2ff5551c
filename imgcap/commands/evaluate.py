"""Score a run or an artefact on a split. Run it alone or under torchrun: the scores are the same.

    imgcap evaluate runs/flickr8k --split test --beam 5
    torchrun --nproc_per_node 4 -m imgcap evaluate runs/flickr8k --split test --beam 5

The last line of stdout is the scores as JSON. A run also gets results/SPLIT-captions.json and
results/SPLIT-scores.json; with data.shards=DIR, which scores it on another set, NAME-SPLIT-... instead.
"""

import json
import sys
from pathlib import Path

from imgcap.commands.arguments import MODEL, add_device, add_overrides, add_which, parser_for
from imgcap.errors import exits_cleanly


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("path", metavar="RUN_OR_ARTEFACT", help=MODEL)
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, help="default: eval.beam of the run")
    parser.add_argument("--out", type=Path, help="also write the scores to this file")
    add_which(parser)
    add_device(parser)
    add_overrides(parser, "override the run's configuration")
    arguments = parser.parse_intermixed_args()

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.data.dataset import place_of
    from imgcap.evaluation.evaluator import Evaluator
    from imgcap.evaluation.metrics.diversity import train_split
    from imgcap.evaluation.results import write_json, write_results
    from imgcap.models.trained import open_trained
    from imgcap.ranks.world import close_ranks, init_ranks
    from imgcap.shards.reader import ShardReader

    overrides = arguments.overrides + ([] if arguments.beam is None else [f"eval.beam={arguments.beam}"])
    world = init_ranks(arguments.device)
    try:
        loaded = open_trained(arguments.path, world.device, arguments.which, overrides)
        config = loaded.config
        reader = ShardReader(place_of(config.data), arguments.split)
        evaluator = Evaluator(
            reader,
            loaded.vocabulary,
            config.data,
            config.eval,
            world,
            split=arguments.split,
            precision=config.train.precision,
            train=train_split(reader) if world.is_main else None,
        )
        with loaded.autocast():
            evaluation = evaluator.run(loaded.model)
        if world.is_main:
            if loaded.is_run:
                elsewhere = any(override.startswith("data.shards=") for override in overrides)
                label = f"{reader.manifest.name}-{arguments.split}" if elsewhere else arguments.split
                write_results(loaded.path, evaluation, loaded.step, label)
            if arguments.out:
                write_json(arguments.out, evaluation.as_json())
            print(f"{arguments.path}, step {loaded.step}: {len(evaluation.captions)} images", file=sys.stderr)
            print(json.dumps(evaluation.as_json()), flush=True)
    finally:
        close_ranks()
