"""One trial: a run of imgcap train in a process of its own, whose `metrics.jsonl` is followed."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgcap.errors import UserError
from imgcap.training.monitor.writers import METRICS, read_metrics
from imgcap.training.preemption import MARKER, PREEMPTED_EXIT_CODE

State = Literal["complete", "pruned", "failed"]
LOOK_EVERY = 0.5  # seconds


class Interrupted(Exception):
    """The trial was asked to stop, by another than the sweep. Run the sweep again and it goes on."""


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and its evaluations' values; `reason` is of a failed one."""

    state: State
    values: list[float]
    reason: str = ""


def run_trial(command: Sequence[str], run: Path, objective: str, should_prune: Callable[[list[float]], bool]) -> Ended:
    """Run the command, which trains into `run`; its output is added to `run`.log.

    After each evaluation `should_prune` is asked, with the values of all so far; the run is then ended by SIGTERM.
    Raises Interrupted where somebody else ended it, and UserError where it failed before its first logged step: then
    the next trial would, too.
    """
    log = run.with_name(f"{run.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    pruned, seen = False, 0
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                values = evaluations(run, objective)
                if len(values) > seen and not pruned and should_prune(values):
                    pruned = True
                    process.send_signal(signal.SIGTERM)
                seen = len(values)
                time.sleep(LOOK_EVERY)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    values = evaluations(run, objective)
    if pruned:
        return Ended("pruned", values)
    if process.returncode == PREEMPTED_EXIT_CODE or (run / MARKER).exists():
        raise Interrupted(f"{run} was stopped")
    if process.returncode == 0 and values:
        return Ended("complete", values)
    reason = _last_words(log) if process.returncode else f"no evaluation gave {objective}"
    if not (run / METRICS).exists():
        raise UserError(
            f"the trial in {run} did not begin: {reason}; mend it and run the sweep again (all it said: {log})"
        )
    return Ended("failed", values, reason)


def evaluations(run: Path, objective: str) -> list[float]:
    """The objective's value at each evaluation so far."""
    return [line[objective] for line in read_metrics(run / METRICS) if line.get(objective) is not None]


def _last_words(log: Path) -> str:
    """The error that a run ended with, or its last line."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]
