"""From a configuration to a trainer that is ready to start, or to go on."""

from collections.abc import Mapping
from pathlib import Path

import torch

from imgcap.checkpoint.load import Checkpoint
from imgcap.config.changes import Change
from imgcap.config.data import VocabConfig
from imgcap.config.run import Config
from imgcap.config.section import steps_of
from imgcap.data.dataset import features_of
from imgcap.data.plan import split_batch
from imgcap.data.stream import NOT_EXACT
from imgcap.errors import UserError
from imgcap.evaluation.evaluator import Evaluator
from imgcap.models.captioner import Captioner
from imgcap.ranks.collectives import on_main
from imgcap.ranks.progress import say
from imgcap.ranks.world import World
from imgcap.text.adaptation import adapted
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.aim import Aim
from imgcap.training.critic import Critic
from imgcap.training.early_stopping import EarlyStopping, measured
from imgcap.training.engines.build import build_engine
from imgcap.training.engines.state import parameter_counts
from imgcap.training.feature_cache import check_features
from imgcap.training.fine_tuning import initial_captioner, origin
from imgcap.training.lines import start_block
from imgcap.training.monitor.writers import Monitor
from imgcap.training.objectives.base import Objective
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.training.objectives.self_critical import SelfCritical
from imgcap.training.optim.ema import WeightAverage
from imgcap.training.optim.learning_rate import LearningRate
from imgcap.training.preemption import PreemptionNotice, remove_marker
from imgcap.training.resumption import Resumption, another_name
from imgcap.training.start_model import StartModel
from imgcap.training.starts import record_start
from imgcap.training.trainer import Timetable, Trainer
from imgcap.training.training_data import TrainingData, open_shards, open_training_data, warn_of_unknown
from imgcap.training.unfreezing import Unfreezing
from imgcap.training.watched import Watched


def assemble(config: Config, world: World, resumption: Resumption, dry_run: bool = False) -> Trainer:
    """Build every part of a run, and load the checkpoint it goes on from, if there is one. A dry run writes nothing."""
    changed = [] if dry_run else resumption.accepted(config)
    data = open_training_data(config.data, config.train.global_batch, config.seed, world, config.eval.split)
    plan, counts = data.plan, data.counts
    vocabulary = build_vocabulary(counts.counts, config.vocab, origin(config.init_from, resumption))
    warn_of_unknown(vocabulary, counts, config.vocab, world)
    accumulation = split_batch(config.train.global_batch, config.train.micro_batch, world.world_size)
    timetable = _timetable(config, plan.steps_per_epoch)
    saved = None if dry_run else resumption.agreed()
    if saved:
        _check_vocabulary(vocabulary, config, saved)

    torch.manual_seed(config.seed)
    if saved or dry_run:  # a checkpoint holds its own weights, and a dry run needs none
        model, objective = Captioner(config.model, len(vocabulary)), saved.state.get("objective") if saved else None
    else:
        model, objective = initial_captioner(config.model, config.init_from, vocabulary)
    model.encoder.cells(config.data.image_size)  # or a refusal; it is known before an engine divides the weights
    if saved:
        _load_model(model, saved)
    engine = build_engine(config.engine, _objective(config, model), config.train, config.optim, world)
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
        loader=data.load(vocabulary, accumulation, start, timetable.total),
        plan=plan,
        accumulation=accumulation,
        timetable=timetable,
        rate=LearningRate(config.optim, timetable.total, plan.steps_per_epoch),
        unfreezing=Unfreezing(
            config.train.unfreeze, model.encoder.frozen_stages, plan.steps_per_epoch, model.encoder.frozen_before
        ),
        stopping=EarlyStopping(config.train.early_stopping, measured=measured(config.eval)),
        evaluator=build_evaluator(config, world, vocabulary),
        monitor=monitor,
        notice=notice,
        keep=config.checkpoint.keep,
        file_names=data.file_names,
        aim=Aim(objective) if dry_run else _aim(config, objective, data, vocabulary, world, engine.objective),
    )
    if saved:
        trainer.resume(saved)
    if not dry_run:
        on_main(lambda: _begin(trainer, config, vocabulary, saved, changed))
        if world.is_main:
            _say_what_begins(config, trainer, data, vocabulary, saved)
    return trainer


def build_vocabulary(counts: Mapping[str, int], config: VocabConfig, trained: Path | None = None) -> Vocabulary:
    """Build a run's vocabulary: a pure function of the train split's token counts and the `vocab` section.

    Where a `trained` model is gone on with, its words are adapted to the data's by `vocab.adapt`. Adapting what is
    adapted changes nothing, so that a resumed run finds its own vocabulary again.
    """
    own = Vocabulary.build(counts, config.size, config.min_count, config.oov)
    return own if trained is None else adapted(Vocabulary.load(trained / "vocab.json"), own, counts, config.adapt)


def build_evaluator(config: Config, world: World, vocabulary: Vocabulary) -> Evaluator:
    """Build the evaluator that a run's evaluations during training use."""
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


def _objective(config: Config, model: Captioner) -> CrossEntropy:
    """What the run minimises. DeepSpeed exchanges weights under a compiler's eyes, so there only who asks compiles."""
    by_itself = config.train.compile == "auto" and config.engine.name == "deepspeed"
    train = config.train.model_copy(update={"compile": "off"}) if by_itself else config.train
    if train.objective == "self_critical":
        return SelfCritical(model, train, config.seed, config.data.max_tokens)
    return CrossEntropy(model, train)


def _aim(
    config: Config,
    inherited: str | None,
    data: TrainingData,
    vocabulary: Vocabulary,
    world: World,
    objective: Objective,
) -> Aim:
    """What the run trains for, with what rewards drawn captions where these are the objective from a step on."""
    if not isinstance(objective, SelfCritical):
        return Aim(inherited)
    from imgcap.evaluation.metrics.reward import Rewards

    drawing, first = config.train.self_critical, steps_of(config.train.objective_from, data.plan.steps_per_epoch)
    weights = {name: weight for name, weight in drawing.reward.items() if weight}
    rewards = Rewards.of_split(data.readers, vocabulary, weights, drawing.end_token)
    watched = Watched(vocabulary, config.data.language, world.device)
    start = None
    if drawing.kl is not None:
        model = Captioner(config.model, len(vocabulary)).to(world.device)
        train = config.train.model_copy(update={"compile": "off"})
        start = StartModel(SelfCritical(model, train, config.seed, config.data.max_tokens), config.run_path)
    return Aim(inherited, Critic(objective, rewards, watched, first, world, start))


def _timetable(config: Config, steps_per_epoch: int) -> Timetable:
    total = config.train.epochs * steps_per_epoch
    first = steps_of(config.train.objective_from, steps_per_epoch)
    if config.train.objective == "self_critical" and first >= total:
        raise UserError(
            f"train.objective_from={config.train.objective_from} is behind the run's end, of train.epochs="
            f"{config.train.epochs}, so that nothing would be self-critical; lower it, or raise train.epochs"
        )
    return Timetable(
        total=min(total, config.train.max_steps or total),
        evaluate=steps_of(config.eval.every, steps_per_epoch),
        save=steps_of(config.checkpoint.every, steps_per_epoch),
        log=steps_of(config.log.every, steps_per_epoch),
    )


def _check_vocabulary(vocabulary: Vocabulary, config: Config, saved: Checkpoint) -> None:
    """Raise `UserError` where the run, or the run that the checkpoint lies in, was trained with other words."""
    for kept in (config.run_path / "vocab.json", saved.path.parent.parent / "vocab.json"):
        if kept.exists() and Vocabulary.load(kept).words != vocabulary.words:
            raise UserError(
                f"the vocabulary of {config.data.shards} with this `vocab` section is not the one in {kept} that "
                "the checkpoint was trained with; restore the shards and the section, or choose another name="
            )


def _begin(
    trainer: Trainer, config: Config, vocabulary: Vocabulary, saved: Checkpoint | None, changed: list[Change]
) -> None:
    """Say what differs and write what the run now is, once its checkpoint fits; nothing where nothing is left to train.

    So the configuration beside the weights is always the one that they were trained with.
    """
    remove_marker(trainer.run)
    told = "; ".join(map(str, changed))
    if trainer.has_ended:
        if changed:
            longer = f"{'train.max_steps' if config.train.max_steps else 'train.epochs'}+=N"
            if trainer.stopped_early:
                longer = "a higher train.early_stopping.patience"
            otherwise = f"{longer} goes on with them, {another_name(config)} begins another run"
            say(f"nothing is trained with other values ({told}): {otherwise}")
        return
    if changed:
        say(f"{trainer.run} goes on with other values: {told}")
    record_start(config, vocabulary, trainer.world, saved, changed)
    trainer.monitor.rewind(trainer.step)
    trainer.monitor.config(config, trainer.step)
    if config.data.mode == "stream":
        trainer.monitor.text("order", NOT_EXACT, trainer.step)


def _say_what_begins(
    config: Config, trainer: Trainer, data: TrainingData, vocabulary: Vocabulary, saved: Checkpoint | None
) -> None:
    steps = trainer.plan.steps_per_epoch, trainer.timetable.total
    parameters, resumed = parameter_counts(trainer.engine.raw_model), (saved.step, saved.path) if saved else None
    manifest, accumulation = data.first.manifest, trainer.accumulation
    facts = manifest, data.counts, vocabulary, accumulation, steps, parameters, resumed
    say(start_block(config, trainer.world, *facts))


def _load_model(model: torch.nn.Module, saved: Checkpoint) -> None:
    try:
        model.load_state_dict(saved.training["weights"] or saved.model)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"the model of {saved.path} is not the one that the configuration describes ({first}); "
            "use the configuration it was trained with, or choose another name="
        ) from None
