"""Train a captioner. Run it alone, under torchrun, or under deepspeed.

    torchrun --nproc_per_node 4 launch/train.py --config configs/flickr8k.yaml optim.lr=2e-4

Without --config it trains the demo. Run it again and it goes on where it stopped.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from imgcap import dist
from imgcap.config import load_config
from imgcap.errors import exits_cleanly
from imgcap.train import PREEMPTED_EXIT_CODE, Preempted, assemble, debug_config, describe, watch

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEMO, help="a YAML file (default: the demo)")
    parser.add_argument("--debug", action="store_true", help="one process, a few samples, shapes, anomaly detection")
    parser.add_argument("--dry-run", action="store_true", help="build everything, print one JSON line, exit")
    parser.add_argument("--resume", default="auto", metavar="auto|PATH|no", help="default: auto")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # deepspeed passes it; we read LOCAL_RANK
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="override the configuration")
    return parser.parse_intermixed_args()


@exits_cleanly
def main() -> None:
    arguments = parse()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.debug:
        config = debug_config(config)
        shutil.rmtree(config.run_path, ignore_errors=True)  # a look into a run, not a run to keep
    world = dist.init()
    try:
        trainer = assemble(config, world, arguments.resume, dry_run=arguments.dry_run)
        if arguments.dry_run:
            if world.is_main:
                print(json.dumps(describe(trainer)), flush=True)
            return
        with watch(trainer.engine.raw_model, arguments.debug):
            trainer.fit()
        trainer.monitor.close()
    except Preempted:
        trainer.monitor.close()
        sys.exit(PREEMPTED_EXIT_CODE)
    finally:
        dist.close()


if __name__ == "__main__":
    main()
