"""The training loop, and the training step from top to bottom."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NoReturn

import torch

from imgcap.checkpoint.load import Checkpoint
from imgcap.checkpoint.save import save_checkpoint
from imgcap.checkpoint.saver import Saver
from imgcap.config.training import TrainConfig
from imgcap.data.batch import counted_ids
from imgcap.data.keyed_random import coins
from imgcap.data.loader import reading
from imgcap.data.plan import Accumulation, Plan
from imgcap.data.stream import StreamPlan
from imgcap.errors import UserError
from imgcap.evaluation.evaluator import EvaluationStopped, Evaluator
from imgcap.models.captioner import Captioner
from imgcap.models.encoders.base import Encoder
from imgcap.ranks.collectives import broadcast_object, gather_objects, on_main, sum_across_ranks
from imgcap.ranks.memory import is_short, within_memory
from imgcap.ranks.progress import Progress, say, telling
from imgcap.ranks.watchdog import at_step, doing
from imgcap.ranks.world import World
from imgcap.shards.identity import SetIdentity
from imgcap.training.aim import Aim
from imgcap.training.bottlenecks import Bottlenecks
from imgcap.training.early_stopping import EarlyStopping
from imgcap.training.engines.protocol import Engine, Numbers, Outcome, Step, StepResult, numbers_on
from imgcap.training.engines.state import parameter_counts, share_buffers
from imgcap.training.feed import Feed
from imgcap.training.lines import best_step, closing_block, evaluation_line
from imgcap.training.meter import Meter, StepCounts
from imgcap.training.micro_batch import micro_batch_that_fits
from imgcap.training.monitor.writers import Monitor
from imgcap.training.optim.ema import WeightAverage
from imgcap.training.optim.learning_rate import LearningRate
from imgcap.training.optim.teacher_forcing import teacher_forcing_ratio
from imgcap.training.preemption import Preempted, PreemptionNotice, leave_marker, say_how_to_go_on
from imgcap.training.report import report_evaluation
from imgcap.training.resumption import restore_best
from imgcap.training.unfreezing import Unfreezing
from imgcap.types import Batch, Forcing, StepInputs

MAX_SKIPPED = 20  # steps in a row without a finite gradient
SCALE_FLOOR = 2.0**-10
STOP_EVERY = 10  # steps at most until a request to stop is seen; looking waits for the device


@dataclass(frozen=True)
class Timetable:
    """How long the run is, and every how many steps something happens; 0 is at the end only."""

    total: int
    evaluate: int
    save: int
    log: int

    def is_due(self, every: int, step: int) -> bool:
        return step == self.total or (every > 0 and step % every == 0)


@dataclass
class Trainer:
    """Drives an engine through the plan. `step` counts finished steps; a resumed run starts from there."""

    run: Path
    world: World
    config: TrainConfig
    engine: Engine
    average: WeightAverage
    loader: Iterable[Batch]
    plan: Plan | StreamPlan
    accumulation: Accumulation
    timetable: Timetable
    rate: LearningRate
    unfreezing: Unfreezing
    stopping: EarlyStopping
    evaluator: Evaluator
    monitor: Monitor
    notice: PreemptionNotice
    keep: int  # checkpoints
    file_names: Callable[[Sequence[int]], list[str]]  # of images, by their numbers
    aim: Aim
    after_step: Callable[[], None] = lambda: None  # a profiler's
    step: int = 0
    evaluated: int = 0  # the step of the last evaluation

    def __post_init__(self) -> None:
        self.meter = Meter(self.world.device)
        self.saver = Saver()
        self.bottlenecks = self._new_bottlenecks()
        self._asked_to_stop = False
        self.logged: dict[str, float] | None = None
        self.notice.at_hand = self._at_hand
        self._evaluating = False
        self._taken: list[Batch] = []  # of this rank, at the step under way

    def fit(self) -> None:
        """Train to the end of the timetable or until early stopping; raises `Preempted` when asked to stop."""
        first, began = self.step, time.monotonic()
        if self.world.is_main and self._finished:
            say(f"{self.run} is finished: step {self.step} of {self.timetable.total}{self._told_early}")
        progress = Progress(self.timetable.total, unit="step", start=self.step, enabled=self.world.is_main)
        with reading(self.loader) as batches, progress:
            self._fit(batches, progress)
        on_main(self.saver.wait)
        if self.world.is_main:
            if first < self.step < self.timetable.total:
                say(f"stopped at step {self.step} of {self.timetable.total}{self._told_early}")
            evaluator, metric = self.evaluator, self.config.early_stopping.metric
            taken, splits = (self.step - first, time.monotonic() - began), evaluator.reader.manifest.splits
            say(closing_block(self.run, *taken, self.stopping.best, metric, evaluator.split, splits))

    @property
    def _told_early(self) -> str:
        return "; it stopped early, by train.early_stopping" if self.step < self.timetable.total else ""

    def _fit(self, batches: Iterator[Batch], progress: Progress) -> None:
        feed = self.feed(batches)
        self._evaluate_if_due()  # where a run ended between a save and its evaluation
        self.meter.restart_clock()
        first: AbstractContextManager[None] = telling("the first step, which takes longer", self.world.is_main)
        while not self._finished:
            self._unfreeze_by_schedule(self.step)
            with first:
                values = within_memory(partial(self.train_step, feed), self._micro_batch_that_fits)
            first = nullcontext()
            if values:
                told = "sampled/reward" if "sampled/reward" in values else "train/loss"
                shown = {told.partition("/")[2]: values[told], "images_per_s": values["perf/images_per_s"]}
                progress.update(self.step, **shown)
            if self._evaluation_is_due or self._asked_to_stop or self.timetable.is_due(self.timetable.save, self.step):
                self.save(best=False, wait=self._asked_to_stop)
            if self._asked_to_stop and not self._finished:
                self._leave()
            self._evaluate_if_due()

    def feed(self, batches: Iterator[Batch]) -> Feed:
        """Make what `train_step` takes, of a loader's batches."""
        return Feed(batches, self.accumulation.steps, self.world.device)

    def _leave(self) -> NoReturn:
        """Leave the run, whose state is saved or being saved: put the marker there and raise `Preempted`."""
        on_main(self.saver.wait)
        on_main(lambda: leave_marker(self.run))
        on_main(lambda: say_how_to_go_on(self.run))
        raise Preempted

    def _at_hand(self) -> str:
        """What is still to do when a signal asks to stop."""
        if self._evaluating:
            return f"leaving the evaluation, step {self.step} is saved"
        if self._finished:
            return "ending, all steps are done"
        return "finishing the step at hand, then saving a checkpoint"

    def _evaluate_if_due(self) -> None:
        """Evaluate after the save, which so survives a failing evaluation, and save again what it decided."""
        if self._evaluation_is_due:
            best = self.evaluate()
            self.evaluated = self.step
            self.save(best)

    @property
    def _evaluation_is_due(self) -> bool:
        due = self.step > 0 and self.timetable.is_due(self.timetable.evaluate, self.step)
        return due and self.evaluated != self.step

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        return self._finished and not self._evaluation_is_due

    @property
    def _finished(self) -> bool:
        return self.step >= self.timetable.total or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        return self.aim.is_reached(self.stopping, self.step)

    def train_step(self, feed: Feed) -> dict[str, float] | None:
        """Train on one global batch: loss, backward, update. Returns what was logged, where a log is due.

        A loss goes this way: `engine.run` → `engine.loss` → the wrapper that exchanges gradients →
        `objective.forward` → `Captioner.encode`, `forcing.unroll`, `caption_loss`. Losses are sums; the tokens of all
        ranks divide them.
        """
        at_step(self.step + 1)
        with self._waiting_for_the_loader():
            micro_batches, on_device = feed.take()
        self._taken = micro_batches
        epoch = self.step // self.plan.steps_per_epoch
        stop = self.notice.requested or self.saver.failed
        counts = cache(StepCounts.begin(micro_batches, epoch, stop, self.world.device))
        ratio = teacher_forcing_ratio(self.config.teacher_forcing, self.step, self.timetable.total)
        factor = self.rate.factor(self.step)
        log = self.timetable.is_due(self.timetable.log, self.step + 1)
        count_correct = log or self.world.device.type == "cuda"  # a GPU's captured step is one, whether it is logged
        inputs = partial(self._inputs, ratio < 1, count_correct)
        self._seed_dropout()
        step = Step(
            on_device,
            numbers_on(self.world.device, self.step, ratio, factor),
            tokens=lambda: counts().tokens,
            inputs=inputs,
            kind=inputs.args,
            updated=self.average.update,
        )
        step = self.aim.turned(step, self.engine, self.meter, micro_batches, self.step, count_correct)
        losses, result = outcome = self.engine.run(step)
        with self._waiting_for_the_loader():
            feed.take_ahead()
        for loss in losses:
            self.meter.add_loss(loss)
        self.meter.add_step(result.skipped, self.plan.global_batch)
        self.step += 1
        self.after_step()
        look = log or self.step % STOP_EVERY == 0
        if look or self._looking_is_free(stop):
            self._asked_to_stop = counts().asked_to_stop()
        if look:
            self._give_up_if_lost(micro_batches, result)
        self.logged = self._log(epoch, counts(), step, outcome, ratio, factor) if log else None
        return self.logged

    def _looking_is_free(self, stop: bool) -> bool:
        """Whether to look for a request to stop also between logs; the same on all ranks."""
        return self.world.device.type == "cpu" or (stop and self.world.world_size == 1)

    @contextmanager
    def _waiting_for_the_loader(self) -> Iterator[None]:
        doing("waiting for the loader")
        started = time.perf_counter()
        yield
        self.meter.waited += time.perf_counter() - started

    def _micro_batch_that_fits(self) -> str:
        doing("looking for a micro-batch that fits")
        return micro_batch_that_fits(
            self.engine, self._taken[0], self.accumulation, self.world.device, first=self.step == 0
        )

    def _unfreeze_by_schedule(self, step: int) -> None:
        """Let the parts of the encoder train that `train.unfreeze` trains in the update after `step` finished ones."""
        frozen = self.unfreezing.frozen_at(step)
        if frozen == self._encoder.frozen_stages:
            return
        self.engine.freeze_encoder(frozen)
        self.average.to_evaluate().encoder.freeze(frozen)  # its folded copy of them would follow no longer
        self.bottlenecks = self._new_bottlenecks()
        if self.world.is_main:
            stage = list(self._encoder.stages)[frozen]
            told = f"step {step + 1}: the encoder trains from {stage} on"
            say(f"{told}, {self._trainable:,} parameters in all")

    def _new_bottlenecks(self) -> Bottlenecks:
        return Bottlenecks(self.world, self._trainable, self.engine.exchanged, self.plan.global_batch)

    @property
    def _encoder(self) -> Encoder:
        return self.engine.raw_model.encoder

    @property
    def _trainable(self) -> int:
        return parameter_counts(self.engine.raw_model)[0]

    def _give_up_if_lost(self, micro_batches: list[Batch], result: StepResult) -> None:
        """Raise UserError after too many skipped steps; on all ranks, since they skip together."""
        skipped, scale = int(self.meter.skipped_in_a_row), float(result.loss_scale)
        if skipped < MAX_SKIPPED and scale >= SCALE_FLOOR:
            return
        images = gather_objects([number for batch in micro_batches for number in counted_ids(batch).tolist()]) or []
        names = self.file_names([number for rank in images for number in rank[:8]])
        named = broadcast_object(", ".join(names))
        raise UserError(
            f"step {self.step}: the gradient was not finite in {skipped} steps in a row (loss scale {scale:g}), here "
            f"with the images {named}; the last checkpoint is from before: lower optim.lr, or set train.precision=bf16"
        )

    def _seed_dropout(self) -> None:
        """Seed dropout by (seed, step, rank), so that a resumed run draws what an unstopped one would."""
        torch.manual_seed((self.plan.seed << 32) ^ (self.step * self.world.world_size + self.world.rank))

    def _inputs(self, forced: bool, count_correct: bool, batch: Batch, numbers: Numbers) -> StepInputs:
        """What the objective gets beside a batch: the coins of scheduled sampling where it is `forced`."""
        if not forced:
            return StepInputs(None, count_correct)
        coins_BKT = coins(self.plan.seed, numbers.step, batch.image_ids, *batch.tokens_BKT.shape[1:])
        two_pass = self.config.teacher_forcing.sampling == "two_pass"
        return StepInputs(Forcing(numbers.ratio, coins_BKT, two_pass), count_correct)

    def _log(
        self, epoch: int, counts: StepCounts, step: Step, outcome: Outcome, ratio: float, factor: float
    ) -> dict[str, float]:
        losses, result = outcome
        correct = torch.stack([loss.correct for loss in losses]).sum(0)
        top1, top5 = (sum_across_ranks(correct) / step.tokens()).tolist()
        values = self.meter.read() | {
            "train/accuracy": top1,
            "train/top5_accuracy": top5,
            **counts.values(),
            "train/grad_norm": float(result.grad_norm),
            "train/loss_scale": float(result.loss_scale),
            "train/teacher_forcing": ratio,
            **{f"optim/{name}": rate * factor for name, rate in self.engine.base_rates().items()},
            "optim/trainable_parameters": self._trainable,
        }
        values |= self.aim.read(self.step, values["train/loss"])
        values |= self.bottlenecks.look(self.step, values)
        on_main(lambda: self.monitor.scalars(self.step, epoch, values))
        self.meter.restart_clock()
        return values

    def evaluate(self) -> bool:
        """Score the validation images, show the result, and say whether it is the best so far."""
        if is_short(self.world.device):
            self.engine.release()
        self._evaluating = True
        self.evaluator.objective = self.aim.after(self.step)
        try:
            with self._to_evaluate() as model:
                evaluation = self.evaluator.run(model, lambda: self.notice.requested)
        except EvaluationStopped:
            self._leave()
        except (UserError, RuntimeError):
            # A signal to the process group also ends the programs that score. All ranks fail alike.
            if sum_across_ranks(torch.tensor(int(self.notice.requested), device=self.world.device)) > 0:
                self._leave()
            raise
        finally:
            self._evaluating = False
        epoch = (self.step - 1) // self.plan.steps_per_epoch
        on_main(
            lambda: report_evaluation(self.run, self.monitor, evaluation, self.step, epoch, self.evaluator.language)
        )
        metric = self.config.early_stopping.metric
        value = evaluation.loss if metric == "loss" else evaluation.scores.get(metric)
        best = value is not None and self.stopping.update(value, self.aim.after(self.step), self.step)
        if value is not None:
            self.rate.evaluated(value, lower_is_better=metric == "loss")
        if self.world.is_main:
            so_far = self.stopping.best, self.step if best else best_step(self.run)
            say(evaluation_line(evaluation, self.step, epoch, metric, *so_far))
        return best

    @contextmanager
    def _to_evaluate(self) -> Iterator[Captioner]:
        """The model to be evaluated and saved, with all its weights, the same on every rank. Entered on all ranks."""
        with self.engine.whole_model():
            if self.average.averaged is not None:
                share_buffers(self.average.averaged)  # an average of BatchNorm's statistics is of a rank's own images
            yield self.average.to_evaluate()

    def save(self, best: bool, wait: bool = False) -> None:
        """Copy the state of the run, and write it from rank 0 while training goes on, or at once.

        A save that fails, fails on every rank: at the next one, or as soon as the ranks agree to stop.
        """
        doing("saving")
        on_main(self.saver.wait)
        training = {**self.engine.state_dict(), "meter": self.meter.state(self.world.is_main)}
        training |= self.aim.state(self.world.is_main)
        state = {
            "plan": self.plan.state(self.step),
            "shards": SetIdentity.of(self.evaluator.reader).as_json(),
            "evaluated": self.evaluated,
            "stopping": self.stopping.state_dict(),
            "rate": self.rate.state_dict(),
            "objective": self.aim.after(self.step),
        }
        with self._to_evaluate() as evaluated:
            if self.world.is_main:
                training["weights"] = self.average.training_weights()
                model, training, state = self.saver.copy([evaluated.state_dict(), training, state])
                root, step, keep = self.run / "checkpoints", self.step, self.keep
                self.saver.start(lambda: save_checkpoint(root, step, model, training, state, keep, best))
        if wait:
            on_main(self.saver.wait)
        self.meter.restart_clock()

    def resume(self, saved: Checkpoint) -> None:
        """Take over the optimiser, the schedules and the place in the plan. The model is loaded already."""
        self.plan.check_state(saved.state["plan"])
        self._unfreeze_by_schedule(saved.step - 1)  # what trained in the last step has an optimiser's state
        self.engine.load_state_dict(saved.training)
        self.average.load(saved.model, saved.step)
        self.meter.load_state(saved.training["meter"], self.world.is_main)
        self.aim.load_state(saved.training, self.world.is_main)
        self.stopping.load_state_dict(saved.state["stopping"], saved.state.get("objective"))
        restore_best(self.run, self.stopping)
        self.rate.load_state_dict(saved.state["rate"])
        self.step, self.evaluated = saved.step, saved.state["evaluated"]
