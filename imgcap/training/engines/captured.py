"""Steps that are launched as CUDA graphs: a GPU no longer waits for two thousand kernels to be launched one by one.

One rank's step is one graph. Of several ranks it is two: losses and gradients up to the exchange, and from the
exchange to the updated weights. The gradients lie in one tensor, which is exchanged between the two, once a step: no
collective is captured, so that a rank that hangs is named as ever, and gloo serves as well as NCCL. What that costs,
the exchange not overlapping with the backward pass, docs/clusters.md sets against what it gains.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imgcap.config.engine import EngineConfig
from imgcap.config.training import OptimConfig, TrainConfig
from imgcap.errors import UserError
from imgcap.models.kernels.graphs import WARM, Graph, NotCaptured, Pool, Static
from imgcap.models.losses import Loss
from imgcap.ranks.progress import say, telling
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World
from imgcap.training.engines.ddp import DDPEngine
from imgcap.training.engines.exchange import average_
from imgcap.training.engines.protocol import Numbers, Outcome, Step, StepResult
from imgcap.training.engines.state import share_weights
from imgcap.training.objectives.base import Objective
from imgcap.types import Batch, Sampled

ALIGNED = 64  # numbers: fused updates read several at once where a tensor begins at a multiple of their size


def say_plainly(world: World, reason: str) -> None:
    """Say, once for all ranks, why steps are not captured."""
    if world.is_main:
        say(f"train.capture: steps are launched kernel by kernel ({reason})")


class Inputs(NamedTuple):
    """All that changes from step to step, at addresses that stay."""

    micro_batches: list[Batch | Sampled]
    numbers: Numbers
    tokens: Tensor


class CapturedEngine(DDPEngine):
    """Engine (see `imgcap.training.engines.protocol`) whose steps are captured, or plain where that can't be.

    It computes what `DDPEngine` does. Each kind of step has its own graphs, and unfreezing captures anew.
    """

    def __init__(
        self, config: EngineConfig, objective: Objective, train: TrainConfig, optim: OptimConfig, world: World
    ) -> None:
        self.insists, self.plainly = train.capture == "on", False
        super().__init__(config, objective, train, optim, world)

    def _build(self) -> None:
        super()._build()
        self.gradient = _flat_gradient(self.parameters)
        self._inputs: Static[Inputs] | None = None
        self._pool = Pool(self.world.device)
        self._kinds: dict[Hashable, _Kind] = {}

    def _wrap(self) -> nn.Module:
        share_weights(self.raw_model)
        return self.objective

    def run(self, step: Step) -> Outcome:
        inputs = Inputs(list(step.micro_batches), step.numbers, step.tokens())
        if self._inputs is None:
            self._inputs = Static(inputs)
        self._inputs.put(inputs)
        if step.kind not in self._kinds:
            self._kinds[step.kind] = _Kind(self, step, self._inputs.value, self._pool)
        return self._kinds[step.kind].run()

    def go_on_plainly(self, reason: NotCaptured) -> None:
        """Take all steps from here on as they are written."""
        if self.insists and reason.out_of_memory:
            raise torch.OutOfMemoryError(str(reason)) from None  # a smaller micro-batch will be named
        if self.insists:
            raise UserError(f"train.capture=on, and the step can't be captured: {reason}; set it to auto") from reason
        say_plainly(self.world, str(reason))
        self.plainly = True
        scale = self.scaler.state_dict()
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=bool(scale))
        self.scaler.load_state_dict(scale)  # the one before may stand in the middle of a step
        self.scaler.scale(torch.zeros((), device=self.world.device))  # its scale is there from the first loss on

    def release(self) -> None:
        self._kinds.clear()
        self._inputs = None

    def exchange(self) -> None:
        """Average the gradient over the ranks."""
        doing("exchange of gradients", waits=True)
        average_(self.gradient, self.exchanged).wait()

    def step(self, rate: Tensor) -> StepResult:
        capturing = self.world.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        for group in self.optimizer.param_groups:
            group["capturable"] = capturing  # torch asks for it; a fused update is the same either way
        return super().step(rate)

    def _clear_gradients(self) -> None:
        self.gradient.zero_()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._kinds.clear()  # they hold the optimiser's state of before


class _Kind:
    """Steps of one kind: the functions that they are made of, and their graphs."""

    def __init__(self, engine: CapturedEngine, step: Step, inputs: Inputs, pool: Pool):
        self.engine = engine
        self._kept: list[tuple[nn.Module, ...]] = []  # what graphs read must live as long as they do
        self._runs = 0

        def losses() -> list[Loss]:
            found = []
            for batch in inputs.micro_batches:
                loss = engine.loss(batch, step.inputs(batch, inputs.numbers))
                engine.backward(loss.total, inputs.tokens)
                found.append(Loss(*(value.detach() for value in loss)))
            return found

        def update() -> StepResult:
            result = engine.step(inputs.numbers.rate)
            step.updated()
            return result

        alone: Callable[[], Outcome] = lambda: Outcome(losses(), update())  # noqa: E731
        self.parts: list[Callable[[], Any]] = [alone] if engine.world.world_size == 1 else [losses, update]
        self.graphs = [Graph(part, engine.world.device, pool) for part in self.parts]

    def run(self) -> Outcome:
        doing("the step")
        self._runs += 1
        capturing = self._runs == WARM + 1 and not self.engine.plainly and self.engine.world.is_main
        with telling("capturing the step as a CUDA graph (train.capture)", capturing):
            computed = self._call(0)
        self._keep(self.engine.raw_model.encoder.folded)
        if len(self.parts) == 1:
            return computed
        self.engine.exchange()
        doing("the update")
        return Outcome(computed, self._call(1))

    def _call(self, part: int) -> Any:
        """Run a part by its graph, or, where that can't be captured and so has computed nothing, as it is written."""
        if not self.engine.plainly:
            try:
                return self.graphs[part]()
            except NotCaptured as reason:
                self.engine.go_on_plainly(reason)
        return self.parts[part]()

    def _keep(self, folded: tuple[nn.Module, ...]) -> None:
        if not any(folded is known for known in self._kept):
            self._kept.append(folded)


def _flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """Lay the gradients of parameters into one tensor of zeros, each in its parameter's memory format."""
    places = [-(-parameter.numel() // ALIGNED) * ALIGNED for parameter in parameters]
    flat = torch.zeros(sum(places), dtype=parameters[0].dtype, device=parameters[0].device)
    offset = 0
    for parameter, place in zip(parameters, places, strict=True):
        parameter.grad = flat.as_strided(parameter.shape, parameter.stride(), offset)
        offset += place
    return flat
