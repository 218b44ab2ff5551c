"""DistributedDataParallel over any number of ranks; with one process, the bare model."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from imgcap.config.schema import OptimConfig, TrainConfig
from imgcap.dist import World
from imgcap.engine.precision import autocast, set_float32_matmul
from imgcap.engine.protocol import StepResult
from imgcap.errors import UserError
from imgcap.models import Captioner
from imgcap.optim import build_optimizer
from imgcap.types import Forcing


class DDPEngine:
    """See `imgcap.engine.protocol.Engine`."""

    def __init__(self, model: Captioner, train: TrainConfig, optim: OptimConfig, world: World):
        self.raw_model = model.to(world.device)
        self.world, self.precision = world, train.precision
        self.clip_norm = train.clip_norm or float("inf")
        set_float32_matmul(train.precision)
        compiled = self.raw_model if train.compile == "off" else _Compiled(self.raw_model, train.compile)
        self.model = self._wrap(compiled)
        with autocast(world.device, train.precision):
            self.raw_model.encoder.fold()  # after DDP has given all ranks the same weights, before any compiling
        self.optimizer = build_optimizer(self.raw_model, optim)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=train.precision == "fp16")

    def _wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        if self.world.world_size == 1:
            return model
        devices = [self.world.device] if self.world.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        wrapped = isinstance(self.model, DistributedDataParallel)
        with nullcontext() if last or not wrapped else self.model.no_sync():  # type: ignore[operator]
            yield

    def forward(
        self,
        images_BCHW: torch.Tensor,
        tokens_BKT: torch.Tensor,
        forcing: Forcing | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        with autocast(self.world.device, self.precision):
            return self.model(images_BCHW, tokens_BKT, forcing)

    def backward(self, loss_sum: torch.Tensor, global_tokens: torch.Tensor) -> None:
        # DDP averages gradients over ranks; the sum over ranks is what a global token count divides.
        self.scaler.scale(loss_sum * (self.world.world_size / global_tokens)).backward()

    def step(self, rate: float) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        self.scaler.unscale_(self.optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        skipped = (~torch.isfinite(grad_norm)).float()
        if not self.scaler.is_enabled():
            # The fused optimiser leaves everything as it was where found_inf is 1: no look from the host.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(grad_norm, skipped, self._loss_scale())

    def _loss_scale(self) -> torch.Tensor:
        scale = self.scaler._scale if self.scaler.is_enabled() else None  # get_scale() would wait for the device
        return torch.ones((), device=self.world.device) if scale is None else scale.detach().clone()

    def synchronise(self) -> None:
        if self.world.world_size > 1:
            for buffer in self.raw_model.buffers():
                distributed.broadcast(buffer, 0)

    def learning_rates(self) -> dict[str, float]:
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        names = {"lr": "decoder", "encoder_lr": "encoder"}
        return {name: rates[group] for name, group in names.items() if group in rates}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        settings = [
            {name: group[name] for name in ("base_lr", "weight_decay")} for group in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise UserError(
                f"the checkpoint's optimiser does not fit this configuration ({error}); resume with the "
                "model.encoder.train it was made with, or begin a new run"
            ) from None
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)  # what the configuration says now, not what it said then
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


class _Compiled(torch.nn.Module):
    """Encoder and unrolled decoder, compiled apart; the model itself stays as it was, for evaluation and saving."""

    def __init__(self, model: Captioner, mode: str):
        super().__init__()
        self.model = model
        self.encode = torch.compile(model.encoder.forward, mode=mode, dynamic=False)
        self.unroll = torch.compile(model.decoder.unroll, mode=mode, dynamic=False)

    def forward(
        self, images_BCHW: torch.Tensor, tokens_BKT: torch.Tensor, forcing: Forcing | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.unroll(self.encode(images_BCHW), tokens_BKT, forcing)
