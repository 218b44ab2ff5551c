"""What saving costs the training step: none, in the background, and waiting for it."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imgcap.data.loader import reading
from imgcap.ranks.world import init_ranks
from tools.bench.timing import Row, alternate, row, timed
from tools.bench.training import stepping

WARM_UP = 10  # steps
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


OPTIONS = {"config": DEMO, "steps": (50, "between two saves"), "image-size": (int, "default: the configuration's")}


def bench_saving(arguments: argparse.Namespace) -> dict[str, Any]:
    """What saving costs the step: blocks of steps in turns, each begun with a save or without one.

    A save in the background ends in its block.
    """
    world = init_ranks(str(arguments.device))
    with TemporaryDirectory() as folder:
        given = [f"data.shards={arguments.shards}", "train.max_steps=null"]
        given += [f"data.image_size={arguments.image_size}"] if arguments.image_size else []
        trainer = stepping(arguments.config, given, Path(folder), world)
        with reading(trainer.loader) as batches:
            feed = trainer.feed(batches)

            def block(steps: int, save: Callable[[], None] = lambda: None) -> None:
                save()
                for _ in range(steps):
                    trainer.train_step(feed)

            block(WARM_UP)
            ways: dict[str, Callable[[], None]] = {
                "no save": lambda: None,
                "in the background": lambda: trainer.save(best=False),
                "waiting": lambda: trainer.save(best=False, wait=True),
            }
            runs = {name: timed(partial(block, arguments.steps, save), world.device) for name, save in ways.items()}
            seconds = alternate(runs, arguments.repeats)
            trainer.saver.wait()
    rows: list[Row] = [row(name, values, arguments.steps, "steps") for name, values in seconds.items()]
    for entry in rows:
        entry["of_no_save"] = round(entry["ms"] / rows[0]["ms"], 4)
    return {"rows": rows}
