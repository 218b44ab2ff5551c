"""Engines drive the model on the ranks: one protocol, chosen by `engine.name`."""

from imgcap.engine.build import build_engine
from imgcap.engine.ddp import DDPEngine
from imgcap.engine.precision import autocast
from imgcap.engine.protocol import Engine, StepResult
from imgcap.engine.state import parameter_counts

__all__ = ["DDPEngine", "Engine", "StepResult", "autocast", "build_engine", "parameter_counts"]
