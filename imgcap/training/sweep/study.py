"""The trials of a sweep, shared by any number of processes through one folder.

`FOLDER/study.journal` is optuna's record of all trials. A process that works on a trial holds a lock, which the system
frees where the process dies: the next one to look for work goes on with that trial, from its checkpoint.
"""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imgcap.errors import UserError, needs
from imgcap.files.locks import Lock
from imgcap.training.sweep.report import Result, shown, write_report
from imgcap.training.sweep.spec import SweepConfig, objective_name
from imgcap.training.sweep.trial import State, run_trial


class _Claim(NamedTuple):
    trial: Any  # optuna's
    lock: Lock


class Sweep:
    """Runs what is left of a sweep; several processes may run the same one at once."""

    def __init__(self, config: SweepConfig, folder: Path, launcher: Sequence[str]):
        """`launcher` is the command that trains; the configuration and its overrides come after it."""
        needs("a sweep", "optuna")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.config, self.folder, self.launcher, self.optuna = config, folder, launcher, optuna
        self.objective = objective_name(config)
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        self._lock = Lock(folder / "locks" / "study")  # held for moments
        with self._lock:
            self.study = self._open()

    def run(self) -> None:
        """Train one trial after another until none is left; after each, the table and the plot are drawn anew.

        And once more at the end: an earlier process may have been killed between a trial's end and its report.
        """
        while (claim := self._claim()) is not None:
            try:
                self._run(claim.trial)
            finally:
                claim.lock.release()
            self._report()
        self._report()
        if not any(result.state == "complete" for result in self.results()):
            raise UserError(f"no trial has a score; {self.folder}/table.md says why each of them ended")

    def results(self) -> list[Result]:
        """Results of every trial that has ended, in the order in which they began."""
        return [self._result(trial) for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _report(self) -> None:
        with self._lock:
            write_report(self.folder, self.config, self.results())

    def _open(self) -> Any:
        optuna, config = self.optuna, self.config
        journal = optuna.storages.journal.JournalFileBackend(str(self.folder / "study.journal"))
        pruner = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=config.startup),
            "halving": optuna.pruners.SuccessiveHalvingPruner(),
            "none": optuna.pruners.NopPruner(),
        }[config.pruner]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(constant_liar=True)  # heeds what other processes are trying
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(journal),
            study_name=config.name,
            direction="minimize" if config.lower_is_better else "maximize",
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        settings = json.loads(config.model_dump_json(exclude={"trials"}))
        for key, value in study.user_attrs.get("settings", {}).items():
            if settings[key] != value:
                raise UserError(
                    f"the sweep in {self.folder} was begun with other {key}; choose another --out, or restore {key}"
                )
        study.set_user_attr("settings", settings)
        return study

    def _claim(self) -> _Claim | None:
        """Claim a trial whose process has died, or else a new one; None where all are taken."""
        states, config = self.optuna.trial.TrialState, self.config
        with self._lock:
            trials = self.study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.state == states.RUNNING and (lock := self._hold(trial.number)):
                    return _Claim(self._suggest(self.optuna.Trial(self.study, trial._trial_id)), lock)
            begun = sum(trial.state != states.WAITING for trial in trials)
            if begun >= config.total:
                return None
            if config.trials is None and begun == len(trials):
                self.study.enqueue_trial(config.combinations[begun])
            trial = self._suggest(self.study.ask())
            lock = self._hold(trial.number)
            assert lock is not None, "a new trial is nobody else's"
            return _Claim(trial, lock)

    def _hold(self, number: int) -> Lock | None:
        lock = Lock(self.folder / "locks" / f"trial-{number:04d}")
        return lock if lock.acquire(wait=False) else None

    def _suggest(self, trial: Any) -> Any:
        for key, parameter in self.config.parameters.items():
            if parameter.choices is not None:
                trial.suggest_categorical(key, parameter.choices)
            elif parameter.is_whole:
                trial.suggest_int(key, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log)
            else:
                trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
        return trial

    def _run(self, trial: Any) -> None:
        run = self.folder / f"trial-{trial.number:04d}"
        values = ", ".join(f"{key}={shown(value)}" for key, value in trial.params.items())
        print(f"trial {trial.number + 1} of {self.config.total}: {values}", file=sys.stderr, flush=True)
        command = [*self.launcher, "--config", str(self.config.base), *self.config.overrides_of(trial.params, run)]
        reported = set(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def should_prune(values: list[float]) -> bool:
            for number in set(range(len(values))) - reported:
                trial.report(values[number], number)  # the n-th evaluations compare, whatever a step is
                reported.add(number)
            return trial.should_prune()

        ended = run_trial(command, run, self.objective, should_prune)
        should_prune(ended.values)  # report those that came last
        states = self.optuna.trial.TrialState
        trial.set_user_attr("reason", ended.reason)
        if ended.state == "complete":
            best = (min if self.config.lower_is_better else max)(ended.values)
            self.study.tell(trial, best)
            print(f"trial {trial.number + 1}: {self.config.objective} {best:.4f}", file=sys.stderr, flush=True)
        else:
            self.study.tell(trial, state=states.PRUNED if ended.state == "pruned" else states.FAIL)
            print(f"trial {trial.number + 1}: {ended.state} {ended.reason}", file=sys.stderr, flush=True)

    def _result(self, trial: Any) -> Result:
        values = list(trial.intermediate_values.values())
        states = self.optuna.trial.TrialState
        names: dict[Any, State] = {states.COMPLETE: "complete", states.PRUNED: "pruned", states.FAIL: "failed"}
        return Result(
            number=trial.number,
            state=names[trial.state],
            values=dict(trial.params),
            objective=(min if self.config.lower_is_better else max)(values) if values else None,
            evaluations=len(values),
            seconds=trial.duration.total_seconds(),
            reason=trial.user_attrs.get("reason", ""),
        )
