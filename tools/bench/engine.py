"""The project's own engine on synthetic batches: what measurements of a training step run.

Dimensions: B images, K captions an image, T tokens, P grid cells, E encoder width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from imgcap.config.engine import EngineConfig
from imgcap.config.model import DecoderConfig, EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.build import build_decoder
from imgcap.ranks.world import World
from imgcap.training.engines.build import build_engine
from imgcap.training.engines.protocol import Engine, Step, numbers_on
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, Batch, StepInputs

ANY_ENCODER = EncoderConfig(name="resnet18", weights=None)


def decoder_engine(config: DecoderConfig, train: TrainConfig, world: World, vocabulary: int, width: int) -> Engine:
    """Build an engine that trains a new decoder on ready features: its captioner has an encoder, which never runs."""
    torch.manual_seed(0)
    with torch.device(world.device):
        captioner = Captioner(ModelConfig(encoder=ANY_ENCODER, decoder=config), vocabulary)
        captioner.decoder = build_decoder(config, vocabulary, width)
    return build_engine(EngineConfig(), CrossEntropy(captioner, train), train, OptimConfig(), world)


def batch_of_features(features_BPE: Tensor, tokens_BKT: Tensor) -> Batch:
    """Make a batch of ready features, in float16 as a feature cache gives them."""
    return Batch(features_BPE.half(), tokens_BKT, torch.arange(len(tokens_BKT), device=tokens_BKT.device))


def random_tokens(shape: tuple[int, ...], vocabulary: int, device: torch.device) -> Tensor:
    """Random captions of full length."""
    tokens_NT = torch.randint(len(SPECIAL_TOKENS), vocabulary, shape, device=device)
    tokens_NT[..., 0], tokens_NT[..., -1] = SOS, EOS
    return tokens_NT


def step_of(engine: Engine, batch: Batch, inputs: StepInputs | None = None) -> Callable[[], None]:
    """Make a training step on a batch that is on the device: loss, backward, clipping and update, as a trainer's."""
    tokens = (batch.tokens_BKT[..., 1:] != PAD).sum()
    numbers = numbers_on(batch.tokens_BKT.device, step=0, ratio=1.0, factor=1.0)
    whole = Step([batch], numbers, lambda: tokens, lambda *_: inputs or StepInputs(), kind=inputs, updated=lambda: None)

    def step() -> None:
        engine.run(whole)

    return step
