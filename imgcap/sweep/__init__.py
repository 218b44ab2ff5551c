"""Sweeps: many short runs that differ in a few keys, what each scored, and which key mattered."""

from imgcap.sweep.spec import SweepConfig, load_sweep
from imgcap.sweep.study import Sweep
from imgcap.sweep.trial import Interrupted

__all__ = ["Interrupted", "Sweep", "SweepConfig", "load_sweep"]
