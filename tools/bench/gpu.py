"""Everything that docs/benchmarks.md says of a GPU, in one command that may be cut at any time.

Figures are measured in the order of what they tell, and each is in the report as soon as it is known. What fails, is
cut by its limit or no longer fits is named there with the reason, and the others go on.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import torch

from imgcap.errors import UserError
from imgcap.files.durable import write_whole
from imgcap.ranks.world import World, init_ranks
from tools.bench import STARTED
from tools.bench.gpu_figures import parts
from tools.bench.gpu_table import table
from tools.bench.gpu_timing import FULL, TINY, Bench, NotHere, Part, free_memory
from tools.bench.timing import PRECISIONS, Row, machine

OPTIONS = {
    "out": (Path, "file for the report, written anew after every figure"),
    "minutes": (6.0, "after which the run ends, its start included"),
    "tiny": (False, "a rehearsal: every figure, at sizes that say nothing, and nothing is compiled"),
    "only": ([str], "only figures with one of these in their names"),
    "checkouts": (Path, "folder of other projects' checkouts: show-attend-tell, imgcap, att2in"),
    "table": (Path, "instead: print the table of docs/benchmarks.md from a report, or from none, which is -"),
}


class OutOfTime(BaseException):
    """The time of a part or of the run is over. No `except Exception` on the way is to keep it."""


class Report:
    """What is known so far, in a file that is whole at any time."""

    def __init__(self, path: Path | None, about: dict[str, Any]):
        self.path, self.about = path, about
        self.figures: list[Row] = []
        self.skipped: dict[str, str] = {}  # a figure's name: why
        self.failed: dict[str, str] = {}
        self.save()

    def save(self) -> None:
        if self.path is None:
            return
        seconds = {"seconds": round(time.monotonic() - STARTED, 1)}
        outcome = {"figures": self.figures, "skipped": self.skipped, "failed": self.failed}
        try:
            write_whole(self.path, json.dumps(self.about | seconds | outcome, indent=1) + "\n", durable=False)
        except OSError as error:
            raise UserError(f"the report {self.path} can't be written ({error.strerror}); name another --out") from None

    def add(self, figure: Row) -> None:
        self.figures.append(figure)
        self.save()
        print("  ".join(f"{key} {value}" for key, value in figure.items()), file=sys.stderr, flush=True)

    def leave_out(self, names: Iterable[str], why: str, failed: bool = False) -> None:
        """Name figures that are not measured, but for those that are already."""
        known = {figure["name"] for figure in self.figures}
        for name in names:
            if name not in known:
                (self.failed if failed else self.skipped)[name] = why
                print(f"{name}: {'failed' if failed else 'skipped'}: {why}", file=sys.stderr, flush=True)
        self.save()


def bench_gpu(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that docs/benchmarks.md says of a GPU, each figure written as it is measured."""
    if arguments.table:
        print(table(_read(arguments.table), all_names()), end="")
        return {}
    world = init_ranks(str(arguments.device))
    sizes = TINY if arguments.tiny else FULL
    about = {"machine": machine(world.device), "torch": torch.__version__, "tiny": arguments.tiny}
    report = Report(arguments.out, about | {"minutes": arguments.minutes, "cores": len(os.sched_getaffinity(0))})
    stance = torch.compiler.set_stance("force_eager" if arguments.tiny else "default")
    with TemporaryDirectory() as folder, stance:
        precisions = PRECISIONS[world.device.type]
        bench = Bench(world, sizes, precisions, Path(folder), arguments.repeats, arguments.checkouts)
        planned = parts(bench)
        if arguments.only:
            planned = [part for part in planned if any(word in name for name in part.names for word in arguments.only)]
            if not planned:
                raise UserError(f"no figure has {' or '.join(map(repr, arguments.only))} in its name")
        measure_all(planned, report, STARTED + 60 * arguments.minutes, lambda: free_memory(world.device))
    if report.failed:
        print(f"failed: {', '.join(report.failed)}", file=sys.stderr, flush=True)
        sys.exit(1)
    return {}


def all_names() -> list[str]:
    """The names of all figures of a GPU, those of a kind together."""
    anywhere = Bench(World(0, 1, 0, torch.device("cuda", 0)), FULL, PRECISIONS["cuda"], Path())
    kinds: dict[str, list[str]] = {}
    for part in parts(anywhere):
        for name in part.names:
            kinds.setdefault(name.partition(",")[0], []).append(name)
    return [name for names in kinds.values() for name in names]


def measure_all(
    planned: Sequence[Part], report: Report, end: float, between: Callable[[], None] = lambda: None
) -> None:
    """Measure part after part until `end` (of `time.monotonic`); what one leaves out doesn't keep the others."""
    for part in planned:
        left = end - time.monotonic()
        if left <= 0:
            report.leave_out(part.names, "the time was over")
            continue
        between()
        limit = min(part.seconds, left)
        try:
            with at_most(limit):
                for figure in part.measure():
                    report.add(figure)
        except OutOfTime:
            report.leave_out(part.names, f"cut after {limit:.0f} s")
        except NotHere as reason:
            report.leave_out(part.names, str(reason))
        except Exception as error:
            traceback.print_exc(limit=-4)
            lines = str(error).strip().splitlines()
            report.leave_out(part.names, f"{type(error).__name__}: {lines[0] if lines else ''}", failed=True)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` inside of the context after so many seconds, as soon as Python runs."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, others)
        signal.signal(signal.SIGALRM, before)


def _read(path: Path) -> dict[str, Any]:
    if str(path) == "-":
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no report of this measurement ({error})") from None
    if not isinstance(report, dict) or "figures" not in report:
        raise UserError(f"{path} is no report of this measurement: it has no figures")
    return report
