"""The section `engine`: how a step runs on the ranks."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from imgcap.config.section import Section


class EngineConfig(Section):
    """How a training step runs on the ranks."""

    name: Literal["ddp", "deepspeed"] = Field("ddp", description="what trains on the ranks: torch's DDP, or DeepSpeed")
    timeout: PositiveFloat = Field(1800.0, description="seconds that a rank may stand still before the run fails")
    exchange: Literal["fp32", "bf16"] = Field(
        "fp32", description="number format in which ranks exchange gradients; bf16 halves the traffic, and rounds"
    )
    bucket_mb: PositiveFloat = Field(
        25.0, description="MB of gradients that DDP exchanges together, where steps are not captured"
    )
    static_graph: bool = Field(False, description="tell DDP that every step uses the same parameters in the same order")
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(
        1, description="what DeepSpeed divides: 1 the optimiser, 2 the gradients too, 3 the weights too; 0 nothing"
    )
    offload: Annotated[Literal["none", "cpu"], BeforeValidator(lambda value: value or "none")] = Field(
        "none", description="where DeepSpeed keeps the optimiser's state: cpu, or (none) on the device"
    )
    deepspeed: dict[str, Any] = Field({}, description="more of DeepSpeed's own configuration, in its own words")
