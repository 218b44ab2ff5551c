"""launch/train.py with a fault in it: inject.py KIND:RANK:STEP[:SECONDS] launch/train.py ARGUMENTS.

Each rank writes the code that it exits with to a file RANK in the folder $EXIT_CODES.
"""

import os
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import torch

from imgcap.data import dataset
from imgcap.evaluation import evaluator
from imgcap.training import trainer

PROCESS = os.getpid()
RANK = int(os.environ.get("RANK", "0"))
kind, rank, step, *seconds = sys.argv[1].split(":")
mine, at = int(rank) in (RANK, -1), int(step)
pause = float(seconds[0]) if seconds else 3600.0


def note(code):
    if "EXIT_CODES" in os.environ and os.getpid() == PROCESS:  # not a worker of the loader
        (Path(os.environ["EXIT_CODES"]) / str(RANK)).write_text(str(code))


def leave(code, really=os._exit):
    note(code)
    really(code)


def in_step(act):
    train_step = trainer.Trainer.train_step

    def faulty(self, batches):
        if mine and self.step + 1 == at:
            act(self)
        return train_step(self, batches)

    trainer.Trainer.train_step = faulty


def fail(_):
    raise ValueError(f"injected in rank {RANK}")


def not_finite(self):
    compute = self.engine.loss

    def bad(*arguments, **options):
        loss = compute(*arguments, **options)
        if self.step + 1 == at or (seconds and self.step + 1 >= at):
            loss = loss._replace(total=loss.total * float("nan"))
        return loss

    self.engine.loss = bad


def slowly(module, name):
    function = getattr(module, name)

    def slow(*arguments, **options):
        time.sleep(pause)
        return function(*arguments, **options)

    setattr(module, name, slow)


FAULTS = {
    "none": lambda: None,
    "hang": lambda: in_step(lambda _: time.sleep(pause)),
    "raise": lambda: in_step(fail),
    "nan": lambda: in_step(not_finite),
    "slow_save": lambda: slowly(sys.modules["imgcap.checkpoint.save"], "sync"),
    "slow_decoding": lambda: slowly(evaluator, "generate"),
    "slow_loading": lambda: slowly(dataset, "decode"),
}
os._exit = leave
FAULTS[kind]()
torch.set_num_threads(1)
sys.argv = sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    note(0)
except SystemExit as error:
    note(error.code)
    raise
except BaseException:
    note(1)
    raise
