"""Trainers in this process, on a CPU or a GPU, whose steps are captured or launched kernel by kernel."""

from unittest.mock import patch

import pytest
import torch

from imgcap.config.load import load_config
from imgcap.ranks.world import World
from imgcap.training.assembly import assemble
from imgcap.training.resumption import Resumption

SMALL = [
    "data={image_size: 32, workers: 0, augment: light}",
    "model.encoder={name: resnet18, weights: none}",
    "model.decoder={embed_dim: 16, hidden_dim: 24, attention_dim: 16}",
    "train={global_batch: 4, epochs: 1000, compile: 'off'}",
    "optim={lr: 4e-3, schedule: constant}",
    "eval={every: 0, limit: 1, batch: 4, beam: 2, metrics: []}",
    "checkpoint.every=0",
    "log={every: 1, tensorboard: false}",
]


def trainer(run, shards, device, *settings, captured=False):
    """Assemble a trainer that goes on with what is in the folder `run`; on a CPU a captured step runs as it is."""
    world = World(0, 1, 0, torch.device(device))
    capture = "on" if captured and world.device.type == "cuda" else "off"
    config = load_config(
        None, [f"run_dir={run}", *SMALL, f"data.shards={shards}", f"train.capture={capture}", *settings]
    )
    resumption = Resumption(run, "auto")
    if not captured or world.device.type == "cuda":
        return assemble(config, world, resumption)
    engine = pytest.importorskip("imgcap.training.engines.captured").CapturedEngine
    with patch("imgcap.training.assembly.build_engine", engine):
        return assemble(config, world, resumption)


def fit(*arguments, **options):
    """Train to the end and return the trainer."""
    made = trainer(*arguments, **options)
    made.fit()
    made.monitor.close()
    return made
