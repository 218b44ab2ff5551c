"""The engine that `engine.name` asks for."""

import os

from imgcap.config.schema import EngineConfig, OptimConfig, TrainConfig
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.protocol import Engine


def build_engine(
    config: EngineConfig, model: Captioner, train: TrainConfig, optim: OptimConfig, world: World
) -> Engine:
    if config.name == "deepspeed":
        os.environ.setdefault("DS_ACCELERATOR", world.device.type)  # DeepSpeed would look for one, and say so
        try:
            from imgcap.training.engines.zero import DeepSpeedEngine  # importing deepspeed takes seconds
        except ImportError as error:
            raise UserError(
                f"engine.name=deepspeed needs the package deepspeed ({error}); pip install deepspeed"
            ) from None
        return DeepSpeedEngine(config, model, train, optim, world)
    return DDPEngine(config, model, train, optim, world)
