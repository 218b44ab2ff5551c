"""The engine that the section `engine` asks for by `engine.name`."""

import os

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import UserError
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.protocol import Engine
from imgcap.training.objectives.base import Objective


def build_engine(
    config: EngineConfig, objective: Objective, train: TrainConfig, optim: OptimConfig, world: World
) -> Engine:
    """Build the engine that drives an objective on this rank's device."""
    if config.name == "deepspeed":
        os.environ.setdefault("DS_ACCELERATOR", world.device.type)  # DeepSpeed would look for one, and say so
        try:
            from imgcap.training.engines.zero import DeepSpeedEngine  # importing deepspeed takes seconds
        except ImportError as error:
            raise UserError(
                f"engine.name=deepspeed needs the package deepspeed ({error}); pip install deepspeed"
            ) from None
        return DeepSpeedEngine(config, objective, train, optim, world)
    return DDPEngine(config, objective, train, optim, world)
