"""The engine that `engine.name` asks for."""

from imgcap.config.schema import EngineConfig, OptimConfig, TrainConfig
from imgcap.dist import World
from imgcap.engine.ddp import DDPEngine
from imgcap.engine.protocol import Engine
from imgcap.models import Captioner

_ENGINES = {"ddp": DDPEngine}


def build_engine(
    config: EngineConfig, model: Captioner, train: TrainConfig, optim: OptimConfig, world: World
) -> Engine:
    return _ENGINES[config.name](model, train, optim, world)
