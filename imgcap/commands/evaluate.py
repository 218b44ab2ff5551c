"""Score a run or an artefact on a split. Run it alone or under torchrun: the scores are the same.

    imgcap evaluate runs/flickr8k --split test --beam 5
    torchrun --nproc_per_node 4 -m imgcap evaluate runs/flickr8k --split test --beam 5

The table goes to stderr; the last line of stdout is the scores as JSON. A run also gets results/SPLIT-captions.json and
results/SPLIT-scores.json. A model is scored on the set that it was trained on; with data.shards=DIR on another, which
the first line says, and a run's files are then NAME-SPLIT-... With eval.limit=N the first N images are scored, and the
files are SPLIT-first-N-...; a limit of the run itself is of training alone.
"""

import json
import sys
from dataclasses import replace

from imgcap.commands.arguments import MODEL, add_device, add_overrides, add_which, device_of, new_file, parser_for
from imgcap.commands.decoding_flags import with_flags
from imgcap.errors import UserError, exits_cleanly, work_begins


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("path", metavar="RUN_OR_ARTEFACT", help=MODEL)
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, help="default: eval.beam of the run")
    parser.add_argument("--out", type=new_file, help="also write the scores to this file")
    add_which(parser)
    add_device(parser)
    add_overrides(parser, "override the run's configuration")
    arguments = parser.parse_intermixed_args()

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.evaluation.evaluator import Evaluator
    from imgcap.evaluation.metrics.diversity import train_split
    from imgcap.evaluation.results import write_json, write_results
    from imgcap.evaluation.scored_set import open_scored, other_set, told
    from imgcap.evaluation.table import score_table
    from imgcap.models.trained import open_trained
    from imgcap.ranks.world import close_ranks, init_ranks, say_without_gpu

    work_begins()
    keys = _keys_of(arguments.overrides)
    world = init_ranks(device_of(arguments.device, arguments.overrides))
    try:
        loaded = open_trained(arguments.path, world.device, arguments.which, arguments.overrides)
        loaded = with_flags(loaded, {"beam": arguments.beam})
        config = loaded.config
        limit = config.eval.limit if "eval.limit" in keys else None
        reader = open_scored(loaded, arguments.split)
        own = other_set(loaded, reader)
        if own and world.is_main:
            print(told(loaded, reader, own), file=sys.stderr, flush=True)
        evaluator = Evaluator(
            reader,
            loaded.vocabulary,
            config.data,
            config.eval,
            world,
            split=arguments.split,
            precision=config.train.precision,
            limit=limit,
            train=train_split(reader) if world.is_main else None,
            objective=loaded.objective,
        )
        say_without_gpu(world, "captioning")
        with loaded.autocast():
            evaluation = evaluator.run(loaded.model)
        evaluation = replace(evaluation, trained_on=str(own) if own else None)
        if world.is_main:
            if loaded.is_run:
                other = reader.manifest.name if own or (loaded.trained_on is None and "data.shards" in keys) else None
                write_results(loaded.path, evaluation, loaded.step, _label(arguments.split, other, limit))
            of = f"{reader.manifest.name} ({reader.place}), split {arguments.split}"
            title = f"{arguments.path}, step {loaded.step:,}: {len(evaluation.captions):,} images of {of}"
            print(score_table(evaluation.as_json(), title), file=sys.stderr, flush=True)
            print(json.dumps(evaluation.as_json()), flush=True)
            if arguments.out:
                write_json(arguments.out, evaluation.as_json())
    finally:
        close_ranks()


def _label(split: str, other: str | None, limit: int | None) -> str:
    """Name the files of a result: by its split, the other set that it is of, and how many images of it."""
    return f"{f'{other}-' if other else ''}{split}{f'-first-{limit}' if limit else ''}"


def _keys_of(overrides: list[str]) -> set[str]:
    """Name the keys that overrides give; UserError for the split of training, which would say nothing here."""
    from imgcap.config.load import read_given

    given = read_given(None, overrides)
    keys = {key for key, _ in given.places()}
    if "eval.split" in keys:
        raise UserError(f"eval.split is of training; use --split {given.plain['eval']['split']}")
    return keys
