"""The whole configuration: what a run is called, and its sections with the checks between them."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from imgcap.config.data import DataConfig, VocabConfig
from imgcap.config.engine import EngineConfig
from imgcap.config.evaluation import EvalConfig
from imgcap.config.model import ModelConfig, TransformerConfig
from imgcap.config.section import Duration, LocalPath, Positive, Section, steps_of
from imgcap.config.training import OptimConfig, SelfCriticalConfig, TrainConfig


class CheckpointConfig(Section):
    """When the run is saved, and how much of it is kept."""

    every: Duration = Field("1ep", description="time between two checkpoints; 0: at the end only")
    keep: Positive = Field(2, description="newest checkpoints that stay on the disk, beside the best")
    grace: PositiveFloat = Field(25.0, description="seconds to save in after a signal; torchrun kills after 30")


class LogConfig(Section):
    """Where the numbers of a run go, beside its metrics.jsonl."""

    every: Duration = Field("10", description="time between two log lines; 0: at the end only")
    tensorboard: bool = Field(True, description="write numbers and pictures for TensorBoard into the run folder")
    wandb: bool = Field(False, description="send numbers and pictures to Weights & Biases")


class Config(Section):
    """A run of imgcap: every key has a default, and a file or an override names those that differ."""

    name: str = Field("demo", description="name of the run")
    run_dir: LocalPath | None = Field(None, description="folder of the run; null: runs/NAME")
    init_from: LocalPath | None = Field(None, description="run or artefact with whose weights a new run begins")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="seed of the data's order, first weights, augmentation, dropout and scheduled sampling"
    )
    device: str | None = Field(
        None, description="device to compute on: cpu, cuda, cuda:1 or mps, as --device; null: the best there is"
    )
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
        if self.train.unfreeze and self.engine.name == "deepspeed":
            raise ValueError("DeepSpeed divides a fixed set of weights; with train.unfreeze set engine.name to ddp")
        if self.train.objective != "self_critical" and steps_of(self.train.objective_from, 1000):
            raise ValueError("train.objective_from is when self_critical begins; set train.objective=self_critical too")
        if self.train.objective != "self_critical" and self.train.self_critical != SelfCriticalConfig():
            raise ValueError("train.self_critical is of train.objective=self_critical; set that too, or leave it out")
        if self.train.objective == "self_critical" and self.data.mode == "stream":
            raise ValueError(
                "train.objective=self_critical rewards captions by all references of the train split, which a stream "
                "doesn't have; set data.mode=index"
            )
        if self.train.objective == "self_critical" and self.vocab.oov == "characters":
            raise ValueError(
                "train.objective=self_critical rewards whole words, and vocab.oov=characters spells those that the "
                "vocabulary lacks; set vocab.oov=unk"
            )
        if self.vocab.adapt != "keep" and self.init_from is None:
            raise ValueError(
                f"vocab.adapt={self.vocab.adapt} changes a trained model's vocabulary; name it by init_from"
            )
        if self.eval.min_length > self.data.max_tokens:
            raise ValueError("eval.min_length is more than data.max_tokens, the words of the longest caption; lower it")
        decoder = self.model.decoder
        if isinstance(decoder, TransformerConfig) and decoder.max_length <= self.data.max_tokens:
            raise ValueError(
                f"model.decoder.max_length={decoder.max_length} must be more than data.max_tokens="
                f"{self.data.max_tokens}: <sos> has a position too"
            )
        if self.train.attention_penalty and not decoder.attends:
            raise ValueError(
                "train.attention_penalty needs a decoder that attends; "
                f"with model.decoder.type={decoder.type} set it to 0"
            )
        return self

    @property
    def run_path(self) -> Path:
        return self.run_dir or Path("runs") / self.name
