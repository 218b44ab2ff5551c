"""Train many short runs that differ in a few keys, and say which values did best.

    imgcap sweep tools/sweeps/learning_rate.yaml
    imgcap sweep tools/sweeps/decoder.yaml --nproc-per-node 4 --out runs/sweeps/decoder

OUT gets table.md, table.csv and parameters.png after each trial, and trial-NNNN, a run like any other. Run the same
command again after a stop and it goes on; run it twice at once and the two share the work (give each its own GPUs with
CUDA_VISIBLE_DEVICES). See docs/sweeps.md.
"""

import os
import signal
import sys
from pathlib import Path

from imgcap.commands.arguments import add_device, parser_for, positive
from imgcap.errors import INTERRUPTED, exits_cleanly, how_to_go_on, write_line
from imgcap.training.preemption import PREEMPTED_EXIT_CODE
from imgcap.training.sweep.spec import load_sweep
from imgcap.training.sweep.study import Sweep
from imgcap.training.sweep.trial import Interrupted

_asked: list[int] = []  # the signals that have come


def leave(number: int, frame: object) -> None:
    """Exit on a signal: the trial at hand saves, and is gone on with by the next call. A second Ctrl-C ends at once."""
    if _asked and number == signal.SIGINT:
        write_line(f"ended at once; {how_to_go_on()}")
        os._exit(INTERRUPTED)
    if not _asked:
        _asked.append(number)
        write_line(
            "stopping: the trial at hand saves a checkpoint, within its checkpoint.grace; Ctrl-C again ends at once"
        )
        sys.exit(PREEMPTED_EXIT_CODE)


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("sweep", type=Path, help="a YAML file like those in tools/sweeps")
    parser.add_argument("--out", type=Path, help="folder of the sweep (default: runs/sweeps/NAME)")
    ranks = "train each trial under torchrun on N ranks"
    parser.add_argument("--nproc-per-node", type=positive, metavar="N", help=ranks)
    add_device(parser)
    arguments = parser.parse_args()
    config = load_sweep(arguments.sweep)
    folder = arguments.out or Path("runs") / "sweeps" / config.name
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(arguments.nproc_per_node)]
    launcher = [sys.executable, *(torchrun if arguments.nproc_per_node else []), "-m", "imgcap", "train"]
    if arguments.device:
        launcher += ["--device", arguments.device]
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, leave)
    try:
        Sweep(config, folder, launcher).run()
    except Interrupted as stopped:
        print(f"{stopped}; {how_to_go_on()}", file=sys.stderr)
        sys.exit(PREEMPTED_EXIT_CODE)
    except SystemExit:
        print(f"stopped; {how_to_go_on()}", file=sys.stderr)
        raise
    print((folder / "table.md").read_text(encoding="utf-8"), end="")
