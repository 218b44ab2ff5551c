"""A self-critical step of a trained model beside one of cross-entropy, and its parts."""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from imgcap.data.loader import reading
from imgcap.models.trained import config_of
from imgcap.ranks.world import World, init_ranks
from imgcap.training.assembly import assemble
from imgcap.training.configuration import configure
from imgcap.training.critic import Critic
from imgcap.training.engines.protocol import Engine, Step, numbers_on
from imgcap.training.trainer import Trainer
from imgcap.types import PAD, Batch, StepInputs
from tools.bench.timing import alternate, row, timed

OPTIONS = {
    "images": (32, "of a batch"),
    "samples": (5, "drawn for each"),
    "baseline": ("others", "or greedy"),
}


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a trained run or artefact, which decides how long drawn captions are")
    parser.add_argument("shards", type=Path, help="a shard set, best with cached features of the model's encoder")


def bench_self_critical(arguments: argparse.Namespace) -> dict[str, Any]:
    """A self-critical step of a trained model beside a step of cross-entropy on the same batch, and its parts."""
    world = init_ranks(str(arguments.device))
    with TemporaryDirectory() as folder:
        trainer = _trainer(arguments, Path(folder), world)
        engine, critic = trainer.engine, trainer.aim.critic
        assert critic is not None, "the objective is self-critical"
        with reading(trainer.loader) as batches:
            fed = trainer.feed(batches).take()
        true = (fed.device[0].tokens_BKT[..., 1:] != PAD).sum()
        numbers = numbers_on(world.device, 0, 1.0, 0.0)  # a rate of 0: the model stays as it is
        plain = Step(fed.device, numbers, lambda: true, lambda *_: StepInputs(), kind="plain", updated=lambda: None)
        turns = {name: timed(run, world.device) for name, run in _runs(engine, critic, plain, fed.host).items()}
        engine.objective.train()
        seconds = alternate({"cross-entropy": turns["cross-entropy"]}, arguments.repeats, rounds=3)
        turns["self-critical"]()  # from here on without dropout
        names = ("self-critical", "drawing", "drawing and rewards")
        seconds |= alternate({name: turns[name] for name in names}, arguments.repeats, rounds=3)
        words = int(critic.watched.sums[6]) / max(critic.watched.sums[0], 1)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    whole, drawing, judged = (medians[name] for name in names)
    shares = {"drawing": drawing, "rewards": judged - drawing, "loss, backward, update": whole - judged}
    return {
        "rows": [row(name, values, arguments.images, "images") for name, values in seconds.items()],
        "times_cross_entropy": round(whole / medians["cross-entropy"], 2),
        "shares": {name: round(part / whole, 3) for name, part in shares.items()},
        "words_of_a_caption": round(words, 2),
        "decoder": engine.raw_model.decoder.__class__.__name__,
    }


def _trainer(arguments: argparse.Namespace, folder: Path, world: World) -> Trainer:
    drawing = f"train.self_critical={{samples: {arguments.samples}, baseline: {arguments.baseline}}}"
    given = [f"init_from={arguments.model}", f"data.shards={arguments.shards}", f"run_dir={folder}", "data.workers=0"]
    trained = config_of(arguments.model)  # its words, pictures and precision
    given += [f"vocab={trained.vocab.model_dump_json()}", f"data.max_tokens={trained.data.max_tokens}"]
    given += [f"data.augment={trained.data.augment}", f"model.encoder.train={trained.model.encoder.train}"]
    given += [f"train.precision={trained.train.precision}", "train.objective=self_critical"]
    given += [drawing, f"train.global_batch={arguments.images}"]
    given += ["eval.every=0", "checkpoint.every=0", "log={every: 0, tensorboard: false}"]
    config, resumption = configure(None, given, "no")
    return assemble(config, world, resumption)


def _runs(engine: Engine, critic: Critic, plain: Step, host: list[Batch]) -> dict[str, Callable[[], object]]:
    def judged() -> Step:
        return critic.step(engine, plain, host, 0, True)

    def drawn() -> None:
        with engine.weights():
            critic.objective.draw(cast(Batch, plain.micro_batches[0]), 0)

    return {
        "cross-entropy": lambda: engine.run(plain),
        "self-critical": lambda: engine.run(judged()),
        "drawing": drawn,
        "drawing and rewards": judged,
    }
