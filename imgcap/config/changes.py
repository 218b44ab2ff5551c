"""What may change in a run that goes on, and what differs between two configurations, key by key."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from imgcap.config.run import Config
from imgcap.config.section import Section

# Keys that leave a run the run it is, by section: where and how fast it computes, how long, at which rates, what it
# shows on the way. Any other key, a new one too, makes it another run. Sets may move: checkpoints know them by hash.
_MAY_CHANGE: dict[str, tuple[str, ...]] = {
    "data": ("shards", "also", "workers", "features", "cache", "cache_gb", "pipes"),
    "model.encoder": ("weights", "recompute"),
    "train": ("epochs", "max_steps", "micro_batch", "precision", "compile", "capture", "clip_norm"),
    "train.teacher_forcing": ("schedule", "start", "end"),
    "train.early_stopping": ("metric", "patience", "min_delta"),
    "optim": (
        "lr",
        "encoder_lr",
        "layer_decay",
        "weight_decay",
        "schedule",
        "warmup",
        "min_lr",
        "step_every",
        "gamma",
        "plateau_patience",
    ),
    "engine": ("name", "timeout", "exchange", "bucket_mb", "static_graph", "zero_stage", "offload", "deepspeed"),
    "eval": (
        "beam",
        "length_penalty",
        "min_length",
        "no_repeat_ngram",
        "unk",
        "every",
        "split",
        "limit",
        "batch",
        "metrics",
        "clip.model",
        "clip.weights",
    ),
    "checkpoint": ("every", "keep", "grace"),
    "log": ("every", "tensorboard", "wandb"),
}
MAY_CHANGE = {"name", "device"} | {f"{section}.{key}" for section, keys in _MAY_CHANGE.items() for key in keys}
_PLACE = "run_dir"  # where a run lies is nothing that it is: folders are moved


class Change(NamedTuple):
    """A key with two values, as JSON has them."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.old)} -> {_shown(self.new)}"


def changes(old: Config, new: Config) -> list[Change]:
    """List the keys that both have, with other values; of decoders of two types that is the type."""
    before, after = dict(_values(old)), dict(_values(new))
    both = (key for key in after if key in before and key != _PLACE)
    return [Change(key, before[key], after[key]) for key in both if before[key] != after[key]]


def _values(section: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.model_dump(mode="json").items():
        below = getattr(section, name)
        if isinstance(below, Section):
            yield from _values(below, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
