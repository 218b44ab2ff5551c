"""What a run goes on from: `--resume`, read here and nowhere else."""

import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from imgcap.checkpoint.load import Checkpoint, load_checkpoint, load_checkpoint_folder, newest_checkpoint
from imgcap.errors import UserError
from imgcap.ranks.collectives import broadcast_object, gather_objects, on_main


@dataclass(frozen=True)
class Resumption:
    """Meaning of `--resume` for a run: `auto` its newest sound checkpoint, if any, a path that one, `no` none.

    Each answer is looked up once, when it is first asked for.
    """

    run: Path
    resume: str

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
