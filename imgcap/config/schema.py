"""Every configuration key, its default and its check. One frozen section for each component.

A duration is a number of steps (`500`) or of epochs (`2ep`, `0.5ep`); `steps_of` converts it once.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Metric = Literal["BLEU", "METEOR", "ROUGE-L", "CIDEr"]
_DURATION = re.compile(r"^(\d+|\d+(\.\d+)?ep)$")


def _checked_duration(value: str) -> str:
    if not _DURATION.match(value):
        raise ValueError(f"{value!r} is no duration; write steps (500) or epochs (2ep)")
    return value


Duration = Annotated[str, BeforeValidator(str), AfterValidator(_checked_duration)]
Off = BeforeValidator(lambda value: "off" if value is False else value)  # YAML reads a bare `off` as false
Source = Annotated[str | None, BeforeValidator(lambda value: None if value == "none" else value)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


def steps_of(duration: str, steps_per_epoch: int) -> int:
    """Convert a duration to whole steps; `0.5ep` of 7 steps is 4 (rounded, at least 1 if not 0)."""
    if not duration.endswith("ep"):
        return int(duration)
    epochs = float(duration[:-2])
    return max(round(epochs * steps_per_epoch), 1) if epochs else 0


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, coerce_numbers_to_str=True)


class DataConfig(Section):
    shards: str = "shards/demo"
    also: dict[str, Annotated[float, Field(gt=0)]] = {}  # other sets to train on: passes over each an epoch
    mode: Literal["index", "stream"] = "index"
    stream: str | None = None  # mode: stream trains on these tars, a pattern; words and evaluation come from shards
    stream_epoch: Positive = 100_000  # images of what counts as an epoch of a stream
    stream_buffer: Positive = 1000  # samples of a worker among which a stream's are mixed
    pipes: bool = False  # a stream may name commands to read from: pipe:COMMAND
    image_size: Positive = 224
    captions_per_image: Positive = 5
    max_tokens: Positive = 20  # words of a caption; a row of the batch has two more, <sos> and <eos>
    workers: Annotated[int, Field(ge=0)] = 2  # loader processes of each rank
    augment: Annotated[Literal["off", "light", "strong"], Off] = "light"
    language: str = "en"
    features: bool = True  # where the shards hold the features of a frozen encoder, read these and no pictures
    cache: Path | None = None  # of a set behind an address; none: the folder shards of $IMGCAP_CACHE or ~/.cache/imgcap
    cache_gb: Annotated[float, Field(gt=0)] = 20.0  # at most so much is kept of it on this machine
    block: Positive | None = None  # shards mixed with each other; none: all, or what the cache holds of a remote set

    @model_validator(mode="after")
    def _check_stream(self) -> "DataConfig":
        if (self.mode == "stream") != (self.stream is not None):
            raise ValueError("data.mode=stream and data.stream='PATTERN of tars' go together; set both, or neither")
        if self.stream and self.also:
            raise ValueError("data.also mixes indexed sets; with data.mode=stream name all tars in data.stream")
        if self.shards in self.also:
            raise ValueError(f"data.also holds {self.shards}, which is data.shards; leave it out there")
        return self


class VocabConfig(Section):
    size: Positive | None = None  # at most so many entries, special tokens among them
    min_count: Positive = 1
    oov: Literal["unk", "characters"] = "unk"


class EncoderConfig(Section):
    name: str = "resnet50"
    weights: Source = "DEFAULT"  # DEFAULT, a local .pth or .safetensors file, or none
    train: Literal["none", "last_block", "all"] = "none"
    output_stride: Literal[32, 16] = 32
    recompute: bool = False  # trainable stages keep no activations and compute them again in the backward


class DecoderConfig(Section):
    type: Literal["lstm", "attention_lstm"] = "attention_lstm"
    layers: Positive = 1
    embed_dim: Positive = 512
    hidden_dim: Positive = 512
    attention_dim: Positive = 512
    query: Literal["before", "after"] = "before"  # attention_lstm: attention feeds the recurrence, or follows it
    attention: Literal["additive", "dot"] = "additive"  # dot: scaled, for query: after
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    init_state: Literal["zeros", "mean"] = "mean"
    gate: bool = True
    output: Literal["linear", "deep"] = "linear"  # deep: the word and the context feed the logits too
    feature_dim: Positive | None = None  # attention_lstm: first embed the image's cells so wide (linear, ReLU)
    image_layers: Annotated[int, Field(ge=0)] = 0  # lstm: ReLU layers ahead of the image's projection

    @model_validator(mode="after")
    def _check_attention(self) -> "DecoderConfig":
        if self.attention == "dot" and self.type == "lstm":
            raise ValueError("model.decoder.attention=dot is for type=attention_lstm; leave it out with type=lstm")
        if self.attention == "dot" and self.query == "before":
            raise ValueError("model.decoder.attention=dot is for query=after; with query=before use additive")
        if self.type == "lstm" and self.query == "after":
            raise ValueError("model.decoder.query=after is for type=attention_lstm; leave it out with type=lstm")
        return self


class ModelConfig(Section):
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()


class TeacherForcingConfig(Section):
    """The probability of feeding the true token, from `start` to `end` over the run."""

    schedule: Literal["constant", "linear", "exponential", "inverse_sigmoid"] = "constant"
    start: Fraction = 1.0
    end: Fraction = 1.0
    sampling: Literal["in_turn", "two_pass"] = "in_turn"  # two_pass: the model's words are those after the true ones


class EarlyStoppingConfig(Section):
    metric: Literal["CIDEr", "BLEU-4", "loss"] = "CIDEr"  # also chooses `best`, and is what `plateau` watches
    patience: Annotated[int, Field(ge=0)] = 0  # evaluations without improvement; 0 never stops
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainConfig(Section):
    epochs: Positive = 20
    max_steps: Positive | None = None
    global_batch: Positive = 32  # images a step, over all ranks
    micro_batch: Positive | None = None  # images a forward of one rank; none: no accumulation
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    compile: Annotated[Literal["off", "default", "reduce-overhead", "max-autotune"], Off] = "off"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_penalty: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of an average of the weights, which is evaluated
    teacher_forcing: TeacherForcingConfig = TeacherForcingConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()


class OptimConfig(Section):
    lr: Annotated[float, Field(gt=0)] = 4e-4
    encoder_lr: Annotated[float, Field(gt=0)] | None = None  # none: the same as lr
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["constant", "cosine", "step", "plateau"] = "cosine"
    warmup: Duration = "0"
    min_lr: Fraction = 0.0  # cosine, step and plateau go no lower than this share of lr
    step_every: Duration = "5ep"  # schedule: step
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.5  # schedule: step and plateau
    plateau_patience: Annotated[int, Field(ge=0)] = 2  # schedule: plateau, in evaluations


class EngineConfig(Section):
    name: Literal["ddp", "deepspeed"] = "ddp"
    timeout: Annotated[float, Field(gt=0)] = 1800.0  # seconds that a rank may stand still before the run fails
    bucket_mb: Annotated[float, Field(gt=0)] = 25.0  # ddp: gradients exchanged together
    static_graph: bool = False  # ddp: each step uses the same parameters in the same order
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1  # deepspeed: 1 divides the optimiser, 2 gradients, 3 weights
    offload: Annotated[Literal["none", "cpu"], BeforeValidator(lambda value: value or "none")] = "none"  # deepspeed
    deepspeed: dict[str, Any] = {}  # deepspeed: more of its own configuration


class EvalConfig(Section):
    every: Duration = "1ep"
    split: str = "val"
    limit: Positive | None = None  # images of an evaluation during training; none: all
    batch: Positive = 32  # images decoded together
    beam: Positive = 5
    length_penalty: Annotated[float, Field(ge=0)] = 1.0  # score = log probability / length ** penalty
    min_length: Annotated[int, Field(ge=0)] = 0  # words of a caption
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0  # no n words in a row occur twice in a caption; 0: they may
    metrics: tuple[Metric, ...] = ("BLEU", "METEOR", "ROUGE-L", "CIDEr")


class CheckpointConfig(Section):
    every: Duration = "1ep"
    keep: Positive = 2
    grace: Annotated[float, Field(gt=0)] = 25.0  # seconds from a signal to the end; torchrun kills after 30


class LogConfig(Section):
    every: Duration = "10"
    tensorboard: bool = True
    wandb: bool = False


class Config(Section):
    name: str = "demo"
    run_dir: Path | None = None  # none: runs/NAME
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig = DataConfig()
    vocab: VocabConfig = VocabConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    engine: EngineConfig = EngineConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        stopping, metrics = self.train.early_stopping, self.eval.metrics
        wanted = {"CIDEr": "CIDEr", "BLEU-4": "BLEU"}.get(stopping.metric)
        follows = stopping.patience > 0 or self.optim.schedule == "plateau"
        if follows and wanted and wanted not in metrics:
            raise ValueError(f"train.early_stopping.metric is {stopping.metric}, so eval.metrics must hold {wanted}")
        if follows and steps_of(self.eval.every, 1000) == 0:
            raise ValueError("early stopping and optim.schedule=plateau need evaluations on the way; set eval.every")
        if self.train.ema and self.engine.name == "deepspeed" and self.engine.zero_stage == 3:
            raise ValueError("train.ema needs whole weights after each step; set engine.zero_stage to 2 or less")
        if self.eval.min_length > self.data.max_tokens:
            raise ValueError("eval.min_length is more than data.max_tokens, the words of the longest caption; lower it")
        if self.train.attention_penalty and self.model.decoder.type == "lstm":
            raise ValueError(
                "train.attention_penalty needs a decoder that attends; with model.decoder.type=lstm set it to 0"
            )
        return self

    @property
    def run_path(self) -> Path:
        return self.run_dir or Path("runs") / self.name
