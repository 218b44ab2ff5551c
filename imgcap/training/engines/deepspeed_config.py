"""DeepSpeed's own configuration, made from ours; a raw `engine.deepspeed` section may add to it."""

from typing import Any

from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from imgcap.config.engine import EngineConfig
from imgcap.config.training import TrainConfig
from imgcap.errors import UserError, nearest

# Sections of DeepSpeed's configuration that leave the training step as it is.
_FREE = (
    "comms_logger",
    "dump_state",
    "flops_profiler",
    "memory_breakdown",
    "prescale_gradients",
    "gradient_predivide_factor",
    "steps_per_print",
    "wall_clock_breakdown",
    "zero_optimization",
)
# Those that say what a key of ours says already.
_OURS = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.micro_batch",
    "optimizer": "the optim section",
    "scheduler": "optim.schedule",
    "fp16": "train.precision",
    "bf16": "train.precision",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
    "gradient_clipping": "train.clip_norm",
    "communication_data_type": "engine.exchange",
    "activation_checkpointing": "model.encoder.recompute",
    "compile": "train.compile",
    "zero_optimization.stage": "engine.zero_stage",
    "zero_optimization.offload_optimizer": "engine.offload",
    "zero_optimization.offload_param": "engine.offload",
}


def deepspeed_config(config: EngineConfig, train: TrainConfig) -> dict[str, Any]:
    """Build what `deepspeed.initialize` is given. Raises `UserError` for an unknown raw key, or one that is ours."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
    raw = dict(config.deepspeed)
    raw_zero = raw.pop("zero_optimization", {})
    if not isinstance(raw_zero, dict):
        raise UserError(f"engine.deepspeed.zero_optimization is a mapping of keys to values, found {raw_zero!r}")
    _check("", raw, _FREE)
    names = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    _check("zero_optimization.", raw_zero, tuple(names))
    return {
        # Accumulation is ours: the engine is told which backward is the last one of a step.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "communication_data_type": config.exchange,
        "gradient_clipping": train.clip_norm or 0.0 if config.zero_stage else 0.0,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "zero_optimization": zero | raw_zero,
        **raw,
    }


def _check(prefix: str, given: dict[str, Any], free: tuple[str, ...]) -> None:
    for key in given:
        if prefix + key in _OURS:
            raise UserError(f"engine.deepspeed.{prefix}{key} is set by {_OURS[prefix + key]}; set that instead")
        if key not in free:
            raise UserError(
                f"unknown key engine.deepspeed.{prefix}{key}; the nearest one is {prefix}{nearest(key, free)}"
            )
