"""From a configuration to a trainer that is ready to start, or to go on."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from imgcap import checkpoint
from imgcap.config.load import save_config
from imgcap.config.run import Config
from imgcap.config.section import steps_of
from imgcap.data import NOT_EXACT, cut_batch, features_of
from imgcap.dist import World, broadcast_object, gather_objects, on_main
from imgcap.engine import build_engine, parameter_counts
from imgcap.errors import UserError
from imgcap.evaluation import Evaluator
from imgcap.feature_cache import check_features
from imgcap.models import Captioner
from imgcap.monitor import Monitor
from imgcap.optim import LearningRate, WeightAverage
from imgcap.shards import TokenCounts
from imgcap.text import Vocabulary
from imgcap.train.early_stopping import EarlyStopping
from imgcap.train.fine_tuning import adapted_vocabulary, initial_captioner
from imgcap.train.preemption import PreemptionNotice, remove_marker
from imgcap.train.trainer import Timetable, Trainer
from imgcap.train.training_data import open_shards, open_training_data
from imgcap.train.unfreezing import Unfreezing


def assemble(config: Config, world: World, resume: str, dry_run: bool = False) -> Trainer:
    """Build every part of a run and load the checkpoint it goes on from, if there is one.

    `resume` is `auto` (the newest verified checkpoint of the run folder, if any), a checkpoint's path, or `no`.
    A dry run writes nothing.
    """
    data = open_training_data(config, world)
    plan, counts = data.plan, data.counts
    vocabulary = adapted_vocabulary(build_vocabulary(counts, config), counts, config, resume)
    cut = cut_batch(config.train.global_batch, config.train.micro_batch, world.world_size)
    timetable = _timetable(config, plan.steps_per_epoch)
    saved = None if dry_run else _find_checkpoint(config.run_path, resume, vocabulary, config.data.shards)

    torch.manual_seed(config.seed)
    # Trained weights are for runs that begin: a checkpoint holds its own, and a dry run needs none.
    bare = saved or dry_run
    model = Captioner(config.model, len(vocabulary)) if bare else initial_captioner(config, vocabulary)
    if saved:
        _load_model(model, saved)
    engine = build_engine(config.engine, model, config.train, config.optim, world)
    if (features := features_of(data.first, config.data)) is not None:
        with engine.whole_model() as whole:
            check_features(features, None if dry_run else whole.encoder, config)
    start = saved.step if saved else 0
    monitor = Monitor(config.run_path, config.log.tensorboard, config.log.wandb, world.is_main and not dry_run)
    notice = PreemptionNotice(config.run_path, config.checkpoint.grace, world.is_main)
    if not dry_run:
        notice.install()
    trainer = Trainer(
        run=config.run_path,
        world=world,
        config=config.train,
        engine=engine,
        average=WeightAverage(engine.raw_model, config.train.ema),
        loader=data.load(vocabulary, cut, start, timetable.total),
        plan=plan,
        cut=cut,
        timetable=timetable,
        rate=LearningRate(config.optim, timetable.total, plan.steps_per_epoch),
        unfreezing=Unfreezing(config.train.unfreeze, model.encoder.frozen_stages, plan.steps_per_epoch),
        stopping=EarlyStopping(config.train.early_stopping),
        evaluator=build_evaluator(config, world, vocabulary),
        monitor=monitor,
        notice=notice,
        keep=config.checkpoint.keep,
    )
    if saved:
        trainer.resume(saved)
    if not dry_run:
        on_main(lambda: _describe_run(config, vocabulary))
        if world.is_main:
            _tell_cuts(counts, config)
    monitor.rewind(trainer.step)
    monitor.config(config, trainer.step)
    if config.data.mode == "stream":
        monitor.text("order", NOT_EXACT, trainer.step)
    return trainer


def describe(trainer: Trainer) -> dict[str, Any]:
    """What `--dry-run` prints: the size of the model, of the data and of a step."""
    trainable, frozen = parameter_counts(trainer.engine.raw_model)
    return {
        "parameters": {"total": trainable + frozen, "trainable": trainable, "frozen": frozen},
        "images": trainer.plan.samples,
        "steps_per_epoch": trainer.plan.steps_per_epoch,
        "total_steps": trainer.timetable.total,
        "global_batch": trainer.plan.global_batch,
        "micro_batch": trainer.cut.micro_batch,
        "accumulation": trainer.cut.steps,
        "world_size": trainer.world.world_size,
    }


def build_vocabulary(counts: TokenCounts, config: Config) -> Vocabulary:
    """The vocabulary of a run: a pure function of the train split's token counts and the `vocab` section."""
    return Vocabulary.build(counts.counts, config.vocab.size, config.vocab.min_count, config.vocab.oov)


def build_evaluator(config: Config, world: World, vocabulary: Vocabulary) -> Evaluator:
    """The evaluator that a run's evaluations during training use."""
    return Evaluator(
        open_shards(config.data, config.data.shards, config.eval.split),
        vocabulary,
        config.data,
        config.eval,
        world,
        split=config.eval.split,
        precision=config.train.precision,
        limit=config.eval.limit,
    )


def _timetable(config: Config, steps_per_epoch: int) -> Timetable:
    total = config.train.epochs * steps_per_epoch
    return Timetable(
        total=min(total, config.train.max_steps or total),
        evaluate=steps_of(config.eval.every, steps_per_epoch),
        save=steps_of(config.checkpoint.every, steps_per_epoch),
        log=steps_of(config.log.every, steps_per_epoch),
    )


def _find_checkpoint(run: Path, resume: str, vocabulary: Vocabulary, shards: str) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, the same on all ranks. Nothing is written, but an older run may be set aside."""
    if resume == "no":
        on_main(lambda: _set_aside(run))
    saved = _checkpoint_to_resume(run, resume)
    steps = broadcast_object(gather_objects(saved.step if saved else 0))
    if len(set(steps or [])) > 1:
        raise UserError(
            f"the ranks found different checkpoints in {run} (steps {steps}); let all machines share run_dir"
        )
    if saved and (run / "vocab.json").exists() and Vocabulary.load(run / "vocab.json").words != vocabulary.words:
        raise UserError(
            f"the vocabulary of {shards} with this `vocab` section is not the one in {run}/vocab.json that "
            "the checkpoint was trained with; restore the shards and the section, or choose another name="
        )
    return saved


def _describe_run(config: Config, vocabulary: Vocabulary) -> None:
    """Write what a run is, once its checkpoint fits: a refused start leaves a good run as it was."""
    run = config.run_path
    run.mkdir(parents=True, exist_ok=True)
    remove_marker(run)
    save_config(config, run / "config.yaml")
    vocabulary.save(run / "vocab.json")


def _tell_cuts(counts: TokenCounts, config: Config) -> None:
    longest, captions = config.data.max_tokens, sum(counts.lengths.values())
    cut = counts.longer_than(longest)
    if cut:
        at_least = "at least " if config.vocab.oov == "characters" else ""  # spelled words take more places
        told = f"data.max_tokens={longest} cuts {at_least}{cut:,} of {captions:,} captions ({cut / captions:.1%})"
        print(told, file=sys.stderr, flush=True)


def _set_aside(run: Path) -> None:
    if not (run / "checkpoints").exists():
        return
    aside = run.with_name(f"{run.name}.{time.strftime('%Y%m%d-%H%M%S')}")
    run.rename(aside)
    print(f"the run that was in {run} is now in {aside}", file=sys.stderr)


def _checkpoint_to_resume(run: Path, resume: str) -> checkpoint.Checkpoint | None:
    if resume == "no":
        return None
    if resume == "auto":
        root = run / "checkpoints"
        return checkpoint.load(root, "latest") if checkpoint.newest(root) else None
    path = Path(resume)
    if (path / "checkpoints").is_dir():
        return checkpoint.load(path / "checkpoints", "latest")
    return checkpoint.load_folder(path)


def _load_model(model: torch.nn.Module, saved: checkpoint.Checkpoint) -> None:
    try:
        model.load_state_dict(saved.training["weights"] or saved.model)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"the model of {saved.path} is not the one that the configuration describes ({first}); "
            "use the configuration it was trained with, or choose another name="
        ) from None
