"""DistributedDataParallel over any number of ranks; with one process, the bare model."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.models.precision import set_float32_matmul
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World
from imgcap.training.engines.exchange import DTYPES, average_bucket
from imgcap.training.engines.protocol import Outcome, Step, StepResult, run_plainly
from imgcap.training.engines.state import check_names, load_whole_state, share_buffers, trainable, whole_state
from imgcap.training.objectives.base import Objective
from imgcap.training.optim.groups import base_rates, build_optimizer, set_rates
from imgcap.types import Batch, Sampled, StepInputs

# Nothing reads BatchNorm's running statistics before whole_model() shares them. The argument's name has changed.
_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}


class DDPEngine:
    """Engine (see `imgcap.training.engines.protocol`) of DistributedDataParallel; of one process, the bare model."""

    def __init__(
        self, config: EngineConfig, objective: Objective, train: TrainConfig, optim: OptimConfig, world: World
    ) -> None:
        self.objective = objective.to(world.device)
        self.raw_model = objective.captioner
        self.world, self.config, self.optim = world, config, optim
        self.exchanged = DTYPES[config.exchange]
        self.clip_norm = train.clip_norm or float("inf")
        set_float32_matmul(train.precision)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")
        self._build()

    def _build(self) -> None:
        """Build what depends on which parameters train: the wrapper and the optimiser."""
        self.wrapped = self._wrap()
        self.warm = not isinstance(self.wrapped, DistributedDataParallel)
        self.optimizer = build_optimizer(self.raw_model, self.optim)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def freeze_encoder(self, stages: int) -> None:
        """Freeze stages (see `Engine`). The optimiser is built anew: a resumed run has its parameters in one order."""
        state = self.optimizer.state
        self.raw_model.encoder.freeze(stages)
        del self.wrapped  # first: two of DDP's reducers would both exchange a gradient
        self._build()
        trained = set(self.parameters)
        self.optimizer.state.update({p: moments for p, moments in state.items() if p in trained})

    def _wrap(self) -> nn.Module:
        if self.world.world_size == 1:
            return self.objective
        share_buffers(self.raw_model)
        wrapped = DistributedDataParallel(
            self.objective,
            device_ids=[self.world.device] if self.world.device.type == "cuda" else None,
            **_BUFFERS,
            bucket_cap_mb=self.config.bucket_mb,
            static_graph=self.config.static_graph,
            gradient_as_bucket_view=True,
        )
        if self.exchanged != torch.float32:
            wrapped.register_comm_hook(self.exchanged, average_bucket)
        return wrapped

    def run(self, step: Step) -> Outcome:
        return run_plainly(self, step)

    def release(self) -> None:
        pass

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        alone = not isinstance(self.wrapped, DistributedDataParallel)
        with nullcontext() if last or alone else self.wrapped.no_sync():  # type: ignore[operator]
            yield

    def loss(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        doing("forward")
        return self.wrapped(batch, step)

    def warm_up(self, batch: Batch | Sampled, step: StepInputs) -> None:
        """Run a micro-batch that counts for nothing, after which DDP's buckets have the layout that they keep.

        How a sum over three ranks or more is rounded depends on its place in a bucket: a run that was resumed would
        else differ in the last bits from one that was not.
        """
        self.warm = True
        assert isinstance(self.wrapped, DistributedDataParallel), "one process is warm from its start"
        kept = [buffer.clone() for buffer in self.raw_model.buffers()]
        exchanges = self.wrapped.require_backward_grad_sync
        self.wrapped.require_backward_grad_sync = True
        with torch.random.fork_rng([self.world.device] if self.world.device.type == "cuda" else []):
            self.wrapped(batch, step).total.backward()
        self.wrapped.require_backward_grad_sync = exchanges
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.raw_model.buffers(), kept, strict=True):
            buffer.copy_(value)

    def backward(self, loss_sum: Tensor, global_tokens: Tensor) -> None:
        doing("backward, with the exchange of gradients", waits=True)
        # DDP averages gradients over ranks; the sum over ranks is what a global token count divides.
        self.scaler.scale(loss_sum * (self.world.world_size / global_tokens)).backward()

    def step(self, rate: Tensor) -> StepResult:
        set_rates(self.optimizer.param_groups, rate)
        self.scaler.unscale_(self.optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        skipped = (~torch.isfinite(grad_norm)).float()
        if not self.scaler.is_enabled():
            # The fused optimiser leaves everything as it was where found_inf is 1: no look from the host.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._clear_gradients()
        return StepResult(grad_norm, skipped, self._loss_scale())

    def _clear_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _loss_scale(self) -> Tensor:
        scale = self.scaler._scale if self.scaler.is_enabled() else None  # get_scale() would wait for the device
        return torch.ones((), device=self.world.device) if scale is None else scale.detach().clone()

    def weights(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def whole_model(self) -> Iterator[Captioner]:
        share_buffers(self.raw_model)
        yield self.raw_model

    def base_rates(self) -> dict[str, float]:
        return base_rates(self.optimizer.param_groups)

    def state_dict(self) -> dict[str, Any]:
        scaler = self.scaler.state_dict()
        scale = {"scale": scaler["scale"], "good_steps": scaler["_growth_tracker"]} if scaler else {}
        return {"optimizer": whole_state(self.optimizer, self.raw_model), "loss_scale": scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_names(state["optimizer"], trainable(self.raw_model))
        load_whole_state(self.optimizer, self.raw_model, state["optimizer"])
        if self.scaler.is_enabled() and state["loss_scale"]:
            scale = state["loss_scale"]
            growth = {"scale": scale["scale"], "_growth_tracker": scale["good_steps"]}
            self.scaler.load_state_dict(self.scaler.state_dict() | growth)
