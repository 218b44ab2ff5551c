"""A trace of some steps, for TensorBoard's profiler page or ui.perfetto.dev."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from imgcap.errors import UserError
from imgcap.training.trainer import Trainer

BEFORE = 3  # steps that are not in the trace: two of warm-up, one in which the profiler itself begins


@contextmanager
def profiling(trainer: Trainer, steps: int | None) -> Iterator[None]:
    """Trace `steps` steps of this rank to RUN/profile/rank-R.pt.trace.json; nothing where none are asked for."""
    if not steps:
        yield
        return
    left = trainer.timetable.total - trainer.step
    if left < BEFORE + steps:
        raise UserError(f"--profile {steps} takes {BEFORE + steps} steps and the run has {left} left; train longer")
    folder = trainer.run / "profile"

    def write(profiler: torch.profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / f"rank-{trainer.world.rank}.pt.trace.json"))

    when = torch.profiler.schedule(wait=BEFORE - 1, warmup=1, active=steps, repeat=1)
    with torch.profiler.profile(schedule=when, on_trace_ready=write, record_shapes=True) as profiler:
        trainer.after_step = profiler.step
        yield
