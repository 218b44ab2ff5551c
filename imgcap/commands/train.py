"""Train a captioner. Run it alone, under torchrun, or under deepspeed.

    imgcap train --config flickr8k optim.lr=2e-4
    torchrun --nproc_per_node 4 -m imgcap train --config configs/flickr8k.yaml
    deepspeed --num_gpus 4 --module imgcap train --config FILE engine.name=deepspeed

Without --config it trains the demo. Run it again and it goes on where it stopped; a finished run with train.epochs+=5
goes on for 5 more epochs. A run of other values is refused, key by key; --change names those with which to go on
nevertheless. With init_from=RUN_OR_ARTEFACT a new run begins with that model's weights.
"""

import json
import shutil
import sys

from imgcap.commands.arguments import Parser, add_device, add_overrides, parser_for, positive
from imgcap.config.shipped import config_file
from imgcap.errors import exits_cleanly, work_begins

CHANGE = "go on with other values of these keys, which make the run another one"


@exits_cleanly
def main() -> None:
    arguments = _parser().parse_intermixed_args()

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.ranks.environment import environment_report
    from imgcap.ranks.world import close_ranks, init_ranks
    from imgcap.training.assembly import assemble
    from imgcap.training.configuration import configure
    from imgcap.training.debug import OneBatch, debug_config, overfit_config, overfitted, watch
    from imgcap.training.dry_run import describe
    from imgcap.training.preemption import PREEMPTED_EXIT_CODE, Preempted
    from imgcap.training.profile import profiling
    from imgcap.training.resumption import Resumption

    work_begins()

    if arguments.env:
        print(environment_report(), flush=True)
        return
    config, resumption = configure(arguments.config, arguments.overrides, arguments.resume, arguments.change)
    if arguments.debug:
        config = debug_config(config)
    if arguments.overfit:
        config = overfit_config(config, arguments.overfit)
    if arguments.debug or arguments.overfit:
        shutil.rmtree(config.run_path, ignore_errors=True)  # a look into a run, not a run to keep
        resumption = Resumption(config.run_path, arguments.resume, resumption.change)
    world = init_ranks(arguments.device or config.device, config.engine.timeout)
    try:
        trainer = assemble(config, world, resumption, dry_run=arguments.dry_run)
        if arguments.dry_run:
            told = describe(trainer, config, resumption)
            if world.is_main:
                print(json.dumps(told), flush=True)
            return
        del resumption  # and the checkpoint's tensors
        if arguments.overfit:
            trainer.loader = OneBatch(trainer.loader)
        with watch(trainer.engine.raw_model, arguments.debug), profiling(trainer, arguments.profile):
            trainer.fit()
        trainer.monitor.close()
        if arguments.overfit and world.is_main:
            print(overfitted(trainer.logged or {}))
    except Preempted:
        trainer.monitor.close()
        sys.exit(PREEMPTED_EXIT_CODE)
    finally:
        close_ranks()


def _parser() -> Parser:
    parser, shipped = parser_for(__doc__), "a YAML file, or the name of one that comes with imgcap (default: the demo)"
    parser.add_argument("--config", type=config_file, default="demo", help=shipped)
    parser.add_argument("--debug", action="store_true", help="one process, a few samples, shapes, anomaly detection")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, check weights, estimate memory and time, print one JSON line",
    )
    parser.add_argument("--overfit", type=positive, metavar="IMAGES", help="300 steps on one batch: a health check")
    parser.add_argument("--profile", type=positive, metavar="STEPS", help="trace some steps to RUN/profile")
    parser.add_argument("--env", action="store_true", help="report versions, devices and settings, exit")
    parser.add_argument("--resume", default="auto", metavar="auto|PATH|no", help="default: auto")
    parser.add_argument("--change", type=_keys, action="extend", default=[], metavar="KEY,KEY", help=CHANGE)
    add_device(parser)
    add_overrides(parser)
    return parser


def _keys(text: str) -> list[str]:
    return text.split(",")
