"""The training loop, and the training step from top to bottom."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from imgcap import checkpoint
from imgcap.config.schema import TrainConfig
from imgcap.data import Accumulation, Plan, TrainLoader, reading
from imgcap.dist import World, on_main, sum_across_ranks
from imgcap.engine import Engine, StepResult
from imgcap.evaluation import Evaluator
from imgcap.monitor import Monitor, Progress
from imgcap.optim import LearningRate, caption_loss, coins, teacher_forcing_ratio, token_accuracy
from imgcap.train.early_stopping import EarlyStopping
from imgcap.train.meter import Meter, StepCounts
from imgcap.train.preemption import Preempted, PreemptionNotice, leave_marker
from imgcap.train.report import report_evaluation
from imgcap.types import Batch, Forcing

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
    loader: TrainLoader
    plan: Plan
    cut: Accumulation
    timetable: Timetable
    rate: LearningRate
    stopping: EarlyStopping
    evaluator: Evaluator
    monitor: Monitor
    notice: PreemptionNotice
    keep: int  # checkpoints
    step: int = 0
    evaluated: int = 0  # the step of the last evaluation

    def __post_init__(self) -> None:
        self.meter = Meter(self.world.device)
        self._asked_to_stop = False

    def fit(self) -> None:
        """Train to the end of the timetable or until early stopping; raises `Preempted` when asked to stop."""
        if self.world.is_main and self._finished:
            print(f"{self.run} is finished: step {self.step} of {self.timetable.total}", file=sys.stderr)
        with reading(self.loader) as batches:
            self._fit(batches)

    def _fit(self, batches: Iterator[Batch]) -> None:
        progress = Progress(self.timetable.total, self.step, self.world.is_main)
        self._evaluate_if_owed()  # where a run ended between a save and its evaluation
        self.meter.restart_clock()
        while not self._finished:
            values = self.train_step(batches)
            if values:
                progress.update(self.step, loss=values["train/loss"], images_per_s=values["perf/images_per_s"])
            if self._evaluation_is_owed or self._asked_to_stop or self.timetable.is_due(self.timetable.save, self.step):
                self.save(best=False)
            if self._asked_to_stop and not self._finished:
                on_main(lambda: leave_marker(self.run))
                raise Preempted
            self._evaluate_if_owed()
        progress.close()

    def _evaluate_if_owed(self) -> None:
        """Evaluate after the save, which so survives a failing evaluation, and save again what it decided."""
        if self._evaluation_is_owed:
            best = self.evaluate()
            self.evaluated = self.step
            self.save(best)

    @property
    def _evaluation_is_owed(self) -> bool:
        due = self.step > 0 and self.timetable.is_due(self.timetable.evaluate, self.step)
        return due and self.evaluated != self.step

    @property
    def _finished(self) -> bool:
        return self.step >= self.timetable.total or self.stopping.should_stop

    def train_step(self, batches: Iterator[Batch]) -> dict[str, float] | None:
        """One global batch: forward, backward, update. Returns what was logged, where a log is due."""
        started = time.perf_counter()
        micro_batches = [next(batches) for _ in range(self.cut.steps)]
        self.meter.waited += time.perf_counter() - started

        epoch = self.step // self.plan.steps_per_epoch
        counts = StepCounts.of(micro_batches, epoch, self.notice.requested, self.world.device)
        ratio = teacher_forcing_ratio(self.config.teacher_forcing, self.step, self.timetable.total)
        log = self.timetable.is_due(self.timetable.log, self.step + 1)
        correct = torch.zeros(2, device=self.world.device)
        head = self.engine.raw_model.decoder.output
        self._seed_dropout()
        for number, batch in enumerate(micro_batches, start=1):
            batch = Batch(*(tensor.to(self.world.device, non_blocking=True) for tensor in batch))
            with self.engine.micro_batch(last=number == len(micro_batches)):
                forcing = self._forcing(ratio, batch)
                readout_BKTR, attention_BKTP = self.engine.forward(batch.images_BCHW, batch.tokens_BKT, forcing)
                smoothing, penalty = self.config.label_smoothing, self.config.attention_penalty
                loss = caption_loss(readout_BKTR, head, batch.tokens_BKT, smoothing, attention_BKTP, penalty)
                self.engine.backward(loss.total, counts.tokens)
            self.meter.add_loss(loss)
            if log:
                correct += token_accuracy(readout_BKTR, head, batch.tokens_BKT)
        result = self.engine.step(self.rate.factor(self.step))
        self.meter.add_step(result.skipped, self.plan.global_batch)
        self.step += 1
        if log or self.step % STOP_EVERY == 0:
            self._asked_to_stop = counts.asked_to_stop()
        return self._log(epoch, counts, correct, result, ratio) if log else None

    def _seed_dropout(self) -> None:
        """Dropout is a function of (seed, step, rank), so a resumed run draws what an unstopped one would."""
        torch.manual_seed((self.plan.seed << 32) ^ (self.step * self.world.world_size + self.world.rank))

    def _forcing(self, ratio: float, batch: Batch) -> Forcing | None:
        """Nothing where every token is the true one."""
        if ratio >= 1:
            return None
        coins_BKT = coins(self.plan.seed, self.step, batch.image_ids, *batch.tokens_BKT.shape[1:])
        two_pass = self.config.teacher_forcing.sampling == "two_pass"
        return Forcing(torch.tensor(ratio).to(self.world.device, non_blocking=True), coins_BKT, two_pass)

    def _log(
        self, epoch: int, counts: StepCounts, correct: torch.Tensor, result: StepResult, ratio: float
    ) -> dict[str, float]:
        top1, top5 = (sum_across_ranks(correct) / counts.tokens).tolist()
        values = self.meter.read() | {
            "train/accuracy": top1,
            "train/top5_accuracy": top5,
            **counts.values(),
            "train/grad_norm": float(result.grad_norm),
            "train/loss_scale": float(result.loss_scale),
            "train/teacher_forcing": ratio,
            **{f"optim/{name}": rate for name, rate in self.engine.learning_rates().items()},
        }
        on_main(lambda: self.monitor.scalars(self.step, epoch, values))
        return values

    def evaluate(self) -> bool:
        """Score the validation images, show the result, and say whether it is the best so far."""
        self.engine.synchronise()
        evaluation = self.evaluator.run(self.engine.raw_model)
        epoch = (self.step - 1) // self.plan.steps_per_epoch
        on_main(lambda: report_evaluation(self.run, self.monitor, evaluation, self.step, epoch))
        metric = self.config.early_stopping.metric
        value = evaluation.loss if metric == "loss" else evaluation.scores.get(metric)
        if value is None:
            return False
        self.rate.evaluated(value, lower_is_better=metric == "loss")
        return self.stopping.update(value)

    def save(self, best: bool) -> None:
        """Write a checkpoint from rank 0; the other ranks wait, and fail where it fails."""
        self.engine.synchronise()
        training = {**self.engine.state_dict(), "meter": self.meter.state(self.world.is_main)}
        state = {
            "plan": self.plan.state(self.step),
            "evaluated": self.evaluated,
            "stopping": self.stopping.state_dict(),
            "rate": self.rate.state_dict(),
        }
        model, root = self.engine.raw_model.state_dict(), self.run / "checkpoints"
        on_main(lambda: checkpoint.save(root, self.step, model, training, state, self.keep, best))
        self.meter.restart_clock()

    def resume(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the optimiser, the schedules and the place in the plan. The model is loaded already."""
        self.plan.check_state(saved.state["plan"])
        self.engine.load_state_dict(saved.training)
        self.meter.load_state(saved.training["meter"], self.world.is_main)
        self.stopping.load_state_dict(saved.state["stopping"])
        self.rate.load_state_dict(saved.state["rate"])
        self.step, self.evaluated = saved.step, saved.state["evaluated"]
