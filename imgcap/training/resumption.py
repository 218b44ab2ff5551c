"""What a run goes on from, and with which other values: `--resume` and `--change`, read here and nowhere else."""

import os
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from imgcap.checkpoint.layout import newest_checkpoint
from imgcap.checkpoint.load import Checkpoint, load_checkpoint, load_checkpoint_folder
from imgcap.checkpoint.save import point_at_best
from imgcap.config.changes import MAY_CHANGE, Change, changes
from imgcap.config.load import load_config
from imgcap.config.run import Config
from imgcap.errors import UserError, is_main_process
from imgcap.ranks.collectives import broadcast_object, from_main, gather_objects, on_main
from imgcap.ranks.progress import say
from imgcap.training.early_stopping import EarlyStopping

CONFIG = "config.yaml"  # of a run, in its folder
_SHOWN = 8  # differing keys in an error's one line


@dataclass(frozen=True)
class Resumption:
    """Meaning of `--resume` for a run: `auto` its newest sound checkpoint, if any, a path that one, `no` none.

    `change` are the keys, or whole sections, that `--change` names. Each answer is looked up once, when it is first
    asked for.
    """

    run: Path
    resume: str
    change: frozenset[str] = frozenset()

    @cached_property
    def begun(self) -> bool:
        """Whether the run has a checkpoint of its own and is not to begin anew."""
        return self.resume != "no" and newest_checkpoint(self.run / "checkpoints") is not None

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint to go on from, every byte verified. It is kept, tensors and all, as long as this object."""
        if self.resume == "no" or (self.resume == "auto" and not self.begun):
            return None
        path = self.run if self.resume == "auto" else Path(self.resume)
        if (path / "checkpoints").is_dir():
            return load_checkpoint(path / "checkpoints")
        return load_checkpoint_folder(path)

    def differences(self, config: Config) -> list[Change]:
        """List the keys that have other values than in the run that is gone on with: no rank needs another for it.

        With a path, that is also the run that the checkpoint lies in. Nothing differs from a run without `config.yaml`.
        """
        runs = [self.run] if self.begun else []
        if self.resume not in ("auto", "no"):
            path = Path(self.resume)
            runs.append(path if (path / "checkpoints").is_dir() else path.parent.parent)
        found: dict[str, Change] = {}
        for run in runs:
            if (run / CONFIG).is_file():
                found = {change.key: change for change in changes(load_config(run / CONFIG), config)} | found
        return list(found.values())

    def accepted(self, config: Config) -> list[Change]:
        """List the differences; `UserError` where one of them makes another run and `--change` doesn't name it."""
        found = self.differences(config)
        refused = [change for change in found if not (change.key in MAY_CHANGE or self._named(change.key))]
        if refused:
            more = len(refused) - _SHOWN
            ways = ["restore them"]
            if self.begun:
                ways.append(f"train another run with {another_name(config)}")
                ways.append("begin anew with --resume no (this one is set aside)")
            if more <= 0:  # with so many it is hardly meant to be the same run
                keys = ",".join(change.key for change in refused)
                ways.append(f"go on, if its weights and words allow it, by --change {keys}")
            told = "; ".join(map(str, refused[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
            raise UserError(
                f"{self.run if self.begun else self.resume} was trained with other values: {told}; {', or '.join(ways)}"
            )
        return found

    def _named(self, key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in self.change)

    def agreed(self) -> Checkpoint | None:
        """The checkpoint, the same on all ranks. With `no`, rank 0 sets an older run aside under a dated name."""
        if self.resume == "no":
            on_main(self._set_aside)
        saved = self.checkpoint
        steps = broadcast_object(gather_objects(saved.step if saved else 0))
        if len(set(steps or [])) > 1:
            raise UserError(
                f"the ranks found different checkpoints in {self.run} (steps {steps}); let all machines share run_dir"
            )
        return saved

    def _set_aside(self) -> None:
        if not (self.run / "checkpoints").exists():
            return
        aside = self.run.with_name(f"{self.run.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        self.run.rename(aside)
        print(f"the run that was in {self.run} is now in {aside}", file=sys.stderr)


def restore_best(run: Path, stopping: EarlyStopping) -> None:
    """Let `best` name the checkpoint that was the best when what is gone on from was saved. On all ranks.

    Later saves, of steps that are now taken again, may have moved it. Where it is gone, the next one will be the best.
    """
    if (step := stopping.best_step) is None:
        return
    if not from_main(lambda: point_at_best(run / "checkpoints", step)):
        stopping.best = stopping.best_step = None


def as_restarted(resume: str, run: Path) -> str:
    """What `--resume` means in this start: a launcher that starts a run once more repeats the words of its first start.

    To begin anew at each restart would throw away what was saved, so from then on it is `auto`.
    """
    restarts = [os.environ.get(name) or "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")]
    if resume == "auto" or set(restarts) == {"0"} or newest_checkpoint(run / "checkpoints") is None:
        return resume
    if is_main_process():
        say(f"this is a restart, so that {run} goes on; --resume {resume} was for the first start")
    return "auto"


def another_name(config: Config) -> str:
    """The override that gives a run of this configuration a folder that isn't there yet: `name=demo-2` or the like."""
    number = next(n for n in count(2) if not config.run_path.with_name(f"{config.run_path.name}-{n}").exists())
    if config.run_dir is not None:
        return f"run_dir={config.run_dir}-{number}"
    return f"name={config.name}-{number} ({config.run_path}-{number})"
