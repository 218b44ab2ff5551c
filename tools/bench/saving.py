"""What saving costs the training step: none, in the background, and waiting for it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imgcap.config.load import load_config
from imgcap.data.loader import reading
from imgcap.ranks.world import init_ranks
from imgcap.training.assembly import assemble
from imgcap.training.resumption import Resumption
from imgcap.training.trainer import Trainer
from tools.bench.timing import Row, alternate, row, timed

WARM_UP = 10  # steps
DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path)
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--steps", type=int, default=50, help="between two saves")
    parser.add_argument("--image-size", type=int, help="default: the configuration's")


def bench_saving(arguments: argparse.Namespace) -> dict[str, Any]:
    """Blocks of steps in turns, each begun with a save or without one. A save in the background ends in its block."""
    world = init_ranks(str(arguments.device))
    with TemporaryDirectory() as folder:
        given = [
            f"data.shards={arguments.shards}",
            f"run_dir={folder}",
            "train.epochs=100000",
            "optim.schedule=constant",
        ]
        given += ["train.max_steps=null", "eval.every=0", "checkpoint.every=0", "log={every: 0, tensorboard: false}"]
        given += [f"data.image_size={arguments.image_size}"] if arguments.image_size else []
        trainer = assemble(load_config(arguments.config, given), world, Resumption(Path(folder), "no"))
        with reading(trainer.loader) as batches:
            for _ in range(WARM_UP):
                trainer.train_step(batches)

            def block(save: Callable[[Trainer], None]) -> Callable[[], None]:
                def run() -> None:
                    save(trainer)
                    for _ in range(arguments.steps):
                        trainer.train_step(batches)

                return run

            ways = {
                "no save": lambda trainer: None,
                "in the background": lambda trainer: trainer.save(best=False),
                "waiting": lambda trainer: trainer.save(best=False, wait=True),
            }
            runs = {name: timed(block(save), world.device) for name, save in ways.items()}
            seconds = alternate(runs, arguments.repeats)
            trainer.saver.wait()
    rows: list[Row] = [row(name, values, arguments.steps, "steps") for name, values in seconds.items()]
    for entry in rows:
        entry["of_no_save"] = round(entry["ms"] / rows[0]["ms"], 4)
    return {"rows": rows}
