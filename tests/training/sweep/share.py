"""share.py SWEEP.yaml FOLDER: what tools/sweep.py does, with fake_train.py in place of launch/train.py."""

import sys
from pathlib import Path

from imgcap.errors import exits_cleanly
from imgcap.training.sweep import trial
from imgcap.training.sweep.spec import load_sweep
from imgcap.training.sweep.study import Sweep
from imgcap.training.sweep.trial import Interrupted

FAKE = Path(__file__).with_name("fake_train.py")


@exits_cleanly
def main():
    trial.LOOK_EVERY = 0.02
    try:
        Sweep(load_sweep(Path(sys.argv[1])), Path(sys.argv[2]), [sys.executable, "-S", str(FAKE)]).run()
    except Interrupted:
        sys.exit(75)


main()
