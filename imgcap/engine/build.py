"""The engine that `engine.name` asks for."""

import os

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.dist import World
from imgcap.engine.ddp import DDPEngine
from imgcap.engine.protocol import Engine
from imgcap.errors import UserError
from imgcap.models import Captioner


def build_engine(
    config: EngineConfig, model: Captioner, train: TrainConfig, optim: OptimConfig, world: World
) -> Engine:
    if config.name == "deepspeed":
        os.environ.setdefault("DS_ACCELERATOR", world.device.type)  # DeepSpeed would look for one, and say so
        try:
            from imgcap.engine.zero import DeepSpeedEngine  # importing deepspeed takes seconds
        except ImportError as error:
            raise UserError(
                f"engine.name=deepspeed needs the package deepspeed ({error}); pip install deepspeed"
            ) from None
        return DeepSpeedEngine(config, model, train, optim, world)
    return DDPEngine(config, model, train, optim, world)
