"""DeepSpeed with ZeRO 0 to 3: optimiser, gradients and weights divided among the ranks (Rajbhandari et al. 2020).

The weights stay float32 and the forward runs under the autocast that the DDP engine uses, so that both engines
train alike; the loss scale is ours for the same reason.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import deepspeed
import torch
import torch.distributed as distributed
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_get_local_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
    set_z3_leaf_modules,
)
from torch import Tensor, nn

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.models.losses import Loss
from imgcap.models.precision import set_float32_matmul
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World
from imgcap.training.engines.deepspeed_config import deepspeed_config
from imgcap.training.engines.exchange import DTYPES
from imgcap.training.engines.loss_scale import LossScale
from imgcap.training.engines.protocol import Outcome, Step, StepResult, run_plainly
from imgcap.training.engines.state import MOMENTS, check_names, load_whole_state, share_buffers, trainable, whole_state
from imgcap.training.objectives.base import Objective
from imgcap.training.optim.groups import base_rates, build_optimizer, rate_on, set_rates
from imgcap.types import Batch, Sampled, StepInputs


class DeepSpeedEngine:
    """Engine (see `imgcap.training.engines.protocol`) of DeepSpeed, with ZeRO 0 to 3."""

    def __init__(
        self, config: EngineConfig, objective: Objective, train: TrainConfig, optim: OptimConfig, world: World
    ) -> None:
        _quiet()
        _join_alone(world)
        set_float32_matmul(train.precision)
        self.objective = objective.to(world.device)
        self.raw_model, self.world, self.stage = objective.captioner, world, config.zero_stage
        self.exchanged = DTYPES[config.exchange]
        self.clip_norm = train.clip_norm or float("inf")
        self.loss_scale = LossScale(train.precision == "fp16")
        share_buffers(self.raw_model)
        module: nn.Module = self.objective
        if self.stage == 3:
            module = _GatheredAtOnce(self.objective)
            set_z3_leaf_modules(module, [_GatheredAtOnce])
        for parameter in self.raw_model.parameters():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)  # as DeepSpeed lays them
        # A collective that DeepSpeed compiles at the first start, and whose ranks spin while they wait.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=distributed.get_backend(), dist_init_required=False, verbose=False)
        optimizer, own = build_optimizer(self.raw_model, optim), deepspeed_config(config, train)
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=own, dist_init_required=False
        )
        if config.offload == "cpu":  # the update reads its rate there: a copy from the device might still be on its way
            for group in self._partitioned.param_groups:
                group["lr"] = rate_on(torch.device("cpu"), group["base_lr"])

    @property
    def _partitioned(self) -> Any:
        """DeepSpeed's ZeRO optimiser; with stage 0 the plain one."""
        return self.deepspeed.optimizer

    def run(self, step: Step) -> Outcome:
        return run_plainly(self, step)

    def release(self) -> None:
        pass

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        self.deepspeed.set_gradient_accumulation_boundary(last)
        yield

    warm = True

    def warm_up(self, batch: Batch | Sampled, step: StepInputs) -> None:
        raise NotImplementedError("a DeepSpeed engine is warm from its start")

    def loss(self, batch: Batch | Sampled, step: StepInputs) -> Loss:
        doing("forward")
        if self.stage == 3:
            return Loss(*self.deepspeed(batch, step, torch.zeros((), device=self.world.device, requires_grad=True)))
        return self.deepspeed(batch, step)

    def backward(self, loss_sum: Tensor, global_tokens: Tensor) -> None:
        doing("backward, with the exchange of gradients", waits=True)
        # DeepSpeed averages gradients over ranks; the sum over ranks is what a global token count divides.
        loss = loss_sum * (self.world.world_size / global_tokens)
        if self.stage:
            self._partitioned.override_loss_scale(self.loss_scale.scale)  # multiplies here, divides in step()
        else:
            loss = loss * self.loss_scale.scale
        self.deepspeed.backward(loss, scale_wrt_gas=False)

    def step(self, rate: Tensor) -> StepResult:
        set_rates(self._partitioned.param_groups, rate)
        scale = self.loss_scale.scale
        grad_norm = None if self.stage else self._clip(scale)
        self.deepspeed.step()
        if grad_norm is None:
            grad_norm = torch.as_tensor(self.deepspeed.get_global_grad_norm(), device=self.world.device).float()
        skipped = ~torch.isfinite(grad_norm)
        if self.loss_scale.enabled:  # the partitioned optimiser has looked at the norm on the host already
            self.loss_scale.update(bool(skipped))
        return StepResult(grad_norm, skipped.float(), torch.tensor(scale, device=self.world.device))

    def _clip(self, scale: float) -> Tensor:
        """Clip at stage 0, which the ZeRO optimisers do in their step."""
        gradients = [parameter.grad for parameter in trainable(self.raw_model).values() if parameter.grad is not None]
        torch._foreach_div_(gradients, scale)
        grad_norm = nn.utils.clip_grad_norm_(list(trainable(self.raw_model).values()), self.clip_norm)
        # The fused optimiser leaves everything as it was where found_inf is 1.
        self._partitioned.grad_scale, self._partitioned.found_inf = None, (~torch.isfinite(grad_norm)).float()
        return grad_norm

    def weights(self) -> AbstractContextManager[None]:
        parameters = list(self.raw_model.parameters()) if self.stage == 3 else []
        return deepspeed.zero.GatheredParameters(parameters, enabled=self.stage == 3)

    @contextmanager
    def whole_model(self) -> Iterator[Captioner]:
        share_buffers(self.raw_model)
        with self.weights():
            yield self.raw_model

    def freeze_encoder(self, stages: int) -> None:
        raise NotImplementedError("the configuration refuses train.unfreeze with DeepSpeed")

    def base_rates(self) -> dict[str, float]:
        return base_rates(self._partitioned.param_groups)

    def state_dict(self) -> dict[str, Any]:
        optimizer = self._gathered() if self.stage else whole_state(self._partitioned, self.raw_model)
        return {"optimizer": optimizer, "loss_scale": self.loss_scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_names(state["optimizer"], trainable(self.raw_model))
        self.loss_scale.load_state_dict(state["loss_scale"])
        if not self.stage:
            load_whole_state(self._partitioned, self.raw_model, state["optimizer"])
        elif state["optimizer"]:
            self._scatter(state["optimizer"])

    @property
    def _flat_partitions(self) -> list[Tensor]:
        """Flat tensors that this rank's optimiser updates, one of each group."""
        zero = self._partitioned
        return zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups

    def _link(self) -> None:
        """Tell each parameter where its moments are: after the first step DeepSpeed does so for one group only."""
        if self.stage < 3:
            self._partitioned._hp_optimizer_states_linked = False
            self._partitioned._lazy_init_hp_params_optimizer_state()

    def _gathered(self) -> dict[str, dict[str, Any]]:
        first = self._partitioned.optimizer.state.get(self._flat_partitions[0])
        if not first:
            return {}
        self._link()
        return {
            name: {"step": int(first["step"])}
            | {moment: safe_get_full_optimizer_state(parameter, moment).detach().cpu() for moment in MOMENTS}
            for name, parameter in trainable(self.raw_model).items()
        }

    def _scatter(self, saved: dict[str, dict[str, Any]]) -> None:
        step = float(next(iter(saved.values()))["step"])
        for flat in self._flat_partitions:
            moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            self._partitioned.optimizer.state[flat] = {"step": torch.tensor(step, device=flat.device), **moments}
        self._link()
        for name, parameter in trainable(self.raw_model).items():
            for moment in MOMENTS:
                value = saved[name][moment].to(self.world.device)
                if self.stage == 3:
                    own = _own_part(value, safe_get_local_fp32_param(parameter).numel(), self.world.rank)
                    safe_set_local_optimizer_state(parameter, own, moment)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)


class _GatheredAtOnce(nn.Module):
    """Objective of stage 3: weights are gathered where it is entered, gradients divided where its backward ends.

    That is when the gradient of its inputs is known. None of ours has one, so `anchor` is there to have it.
    """

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def forward(self, batch: Batch | Sampled, step: StepInputs, anchor: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss as a plain tuple: a module's backward hooks see no tensor inside of another."""
        total, *others = self.objective(batch, step)
        return total + 0 * anchor, *others


def _own_part(value: Tensor, size: int, rank: int) -> Tensor:
    """A rank's part of a flat tensor that is filled up with zeros until all parts are of one size."""
    flat = value.flatten()[rank * size : (rank + 1) * size]
    return nn.functional.pad(flat, (0, size - len(flat)))


def _join_alone(world: World) -> None:
    """Join a process group of one, which DeepSpeed wants also of one process."""
    # DeepSpeed takes the local rank for the number of the GPU.
    os.environ["LOCAL_RANK"] = str(world.local_rank if world.device.index is None else world.device.index)
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    if not distributed.is_initialized():
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    if distributed.get_backend() != backend:
        raise UserError("engine.name=deepspeed exchanges by NCCL on GPUs; leave out IMGCAP_BACKEND=gloo")


def _quiet() -> None:
    """Send DeepSpeed's log to stderr: standard output is for results."""
    for handler in logging.getLogger("DeepSpeed").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
