"""What a rank sees of an exchange of gradients: run by test_exchange.py on several ranks, it prints a list as JSON."""

import json
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from imgcap.config.engine import EngineConfig
from imgcap.config.model import AttentionLSTMConfig, EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import exits_cleanly
from imgcap.models.captioner import build_captioner
from imgcap.ranks.collectives import gather_objects
from imgcap.ranks.world import World, close_ranks, init_ranks
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.exchange import average_
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import EOS, SOS, Batch, StepInputs

MODEL = ModelConfig(
    encoder=EncoderConfig(name="resnet18", weights=None, train="none"),
    decoder=AttentionLSTMConfig(embed_dim=16, hidden_dim=24, attention_dim=16, dropout=0.0),
)
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}  # at most, relative: 24 and 8 significant bits


def gathered(tensor: Tensor) -> list[Tensor]:
    """A tensor of every rank."""
    tensors = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(tensors, tensor)
    return tensors


def flat_average(world: World) -> dict[str, Any]:
    """Numbers of many magnitudes, averaged in both formats: the error against what rounding permits."""
    random = torch.Generator().manual_seed(world.rank)
    own = torch.randn(10_007, generator=random) * 10.0 ** torch.randint(-30, 30, (10_007,), generator=random)
    all_own = torch.stack(gathered(own)).double()
    found: dict[str, Any] = {}
    for dtype, rounding in ROUNDING.items():
        average = average_(own.clone(), dtype).wait()
        error = (average.double() - all_own.mean(0)).abs()
        permitted = 1.01 * (1 + world.world_size) * rounding * all_own.abs().mean(0)  # of a division, a cast, each sum
        found[str(dtype)] = {
            "within_rounding": bool((error <= permitted + 1e-36).all()),
            "rounded": bool((error > 0).any()),
            "same_on_all": all(torch.equal(other, average) for other in gathered(average)),
        }
    return found


def engine_of(world: World, exchange: Any, precision: Any) -> DDPEngine:
    torch.manual_seed(0)
    train = TrainConfig(precision=precision)
    objective = CrossEntropy(build_captioner(MODEL, 20), train)
    # buckets of which there are several, in a model this small
    return DDPEngine(EngineConfig(exchange=exchange, bucket_mb=0.02), objective, train, OptimConfig(), world)


def backward(engine: DDPEngine, world: World, factor: float = 1.0) -> None:
    """Forward and backward of a micro-batch alone, then of one whose gradients are exchanged."""
    random = torch.Generator().manual_seed(world.rank)
    for last in (False, True):
        images_BCHW = torch.randint(0, 256, (2, 3, 32, 32), generator=random, dtype=torch.uint8)
        tokens_BKT = torch.randint(4, 20, (2, 2, 8), generator=random)
        tokens_BKT[..., 0], tokens_BKT[..., -1] = SOS, EOS
        with engine.micro_batch(last):
            loss = engine.loss(Batch(images_BCHW, tokens_BKT, torch.arange(2)), StepInputs())
            engine.backward(loss.total * factor, torch.tensor(2 * 28 * world.world_size))


def weights(engine: DDPEngine) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in engine.parameters])


def gradients(engine: DDPEngine) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in engine.parameters if parameter.grad is not None])


def steps(world: World) -> dict[str, Any]:
    """A step with each format."""
    engines = [engine_of(world, exchange, "fp32") for exchange in ("fp32", "bf16")]
    for engine in engines:
        backward(engine, world)
    exact, rounded = map(gradients, engines)
    for engine in engines:
        engine.step(torch.ones(()))
    return {
        "error": float((rounded - exact).norm() / exact.norm()),
        "same_weights_on_all": all(torch.equal(other, weights(engines[1])) for other in gathered(weights(engines[1]))),
    }


def skipped_step(world: World, precision: str, factor: float) -> dict[str, Any]:
    """A step to which the last rank alone adds gradients that are not finite."""
    engine = engine_of(world, "bf16", precision)
    before, scale = weights(engine), engine.scaler.get_scale()
    backward(engine, world, factor if world.rank == world.world_size - 1 else 1.0)
    result = engine.step(torch.ones(()))
    skipped, kept = result.skipped.item(), torch.equal(weights(engine), before)
    backward(engine, world)
    after = engine.step(torch.ones(())).skipped.item()
    return {"skipped": skipped, "kept": kept, "scaled_by": engine.scaler.get_scale() / scale, "skipped_after": after}


def main() -> None:
    world = init_ranks("cpu")
    found: dict[str, Any] = {"flat": flat_average(world), "steps": steps(world)}
    for precision in ("bf16", "fp16"):
        found[precision] = [skipped_step(world, precision, factor) for factor in (float("inf"), float("nan"))]
    of_all = gather_objects(found)
    if of_all is not None:
        print(json.dumps(of_all), flush=True)
    close_ranks()


if __name__ == "__main__":
    exits_cleanly(main)()
