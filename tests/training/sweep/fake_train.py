"""In place of launch/train.py: writes the evaluations of a run whose score depends on optim.lr alone, within a second.

Each start is noted in RUN.starts. $MISCHIEF, `KIND:TRIAL`, befalls the first start of a trial.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

settings = dict(argument.split("=", 1) for argument in sys.argv if "=" in argument)
run, rate = Path(json.loads(settings["run_dir"])), float(json.loads(settings["optim.lr"]))
run.mkdir(parents=True, exist_ok=True)
starts = run.with_suffix(".starts")
with starts.open("a") as file:
    file.write(f"{os.getppid()}\n")
kind, _, trial = os.environ.get("MISCHIEF", ":").partition(":")
first = starts.read_text().count("\n") == 1 and run.name == f"trial-{trial:>04}"
if first and kind == "mistake":
    sys.exit("error: there is no shard folder shards/demo")

metrics = run / "metrics.jsonl"
done = metrics.read_text().count("\n") if metrics.exists() else 0
for evaluation in range(done, 5):
    score = (1 - abs(math.log10(rate) + 3) / 4) * (1 - 0.5 ** (evaluation + 1))
    with metrics.open("a") as file:
        file.write(json.dumps({"step": evaluation, "epoch": evaluation, "val/CIDEr": score}) + "\n")
    if first and evaluation == 1 and kind == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)
    if first and evaluation == 1 and kind == "preempt":
        (run / "PREEMPTED").write_text("")
        sys.exit(75)
    if first and evaluation == 1 and kind == "diverge":
        sys.exit("error: the gradient was not finite")
    time.sleep(0.1)
(run / "PREEMPTED").unlink(missing_ok=True)
