"""The engine that the section `engine` asks for by `engine.name`."""

import os

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import UserError, needs
from imgcap.ranks.progress import telling
from imgcap.ranks.world import World
from imgcap.training.engines.captured import CapturedEngine, say_plainly
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.protocol import Engine
from imgcap.training.objectives.base import Objective


def build_engine(
    config: EngineConfig, objective: Objective, train: TrainConfig, optim: OptimConfig, world: World
) -> Engine:
    """Build the engine that drives an objective on this rank's device; says so where a GPU's steps aren't captured."""
    on_gpu, by_deepspeed = world.device.type == "cuda", config.name == "deepspeed"
    hindered = "engine.name=deepspeed launches its own" if by_deepspeed else f"steps run on {world.device.type}"
    captured = train.capture != "off" and on_gpu and not by_deepspeed
    if train.capture == "on" and not captured:
        raise UserError(f"train.capture=on needs a CUDA GPU and engine.name=ddp, and {hindered}; set it to auto")
    if train.capture == "auto" and on_gpu and not captured:
        say_plainly(world, hindered)
    if by_deepspeed:
        os.environ.setdefault("DS_ACCELERATOR", world.device.type)  # DeepSpeed would look for one, and say so
        needs("engine.name=deepspeed", "deepspeed")
        try:
            with telling("loading DeepSpeed", world.is_main):
                from imgcap.training.engines.zero import DeepSpeedEngine
        except ImportError as error:  # it is there, and not all that it needs
            raise UserError(f"engine.name=deepspeed: deepspeed can't be loaded ({error}); install it anew") from None
        return DeepSpeedEngine(config, objective, train, optim, world)
    return (CapturedEngine if captured else DDPEngine)(config, objective, train, optim, world)
