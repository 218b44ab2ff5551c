"""The section `eval`: how a model is scored on the way and at the end, and how captions are then decoded."""

from typing import Literal

from pydantic import Field, model_validator

from imgcap.config.decoding import SearchConfig
from imgcap.config.section import Duration, LocalPath, Positive, Section

Metric = Literal["BLEU", "METEOR", "ROUGE-L", "CIDEr", "SPICE", "CLIPScore", "RefCLIPScore"]
BY_CLIP = ("CLIPScore", "RefCLIPScore")  # the metrics that see the pictures


class ClipConfig(Section):
    """The CLIP by which CLIPScore and RefCLIPScore see pictures and captions."""

    model: str = Field("ViT-B-32-quickgelu", description="network of open_clip; the default is that of the paper")
    weights: LocalPath | None = Field(None, description="file of its weights, .safetensors or .pt; null: no CLIPScore")


class EvalConfig(SearchConfig):
    """How captions are decoded and scored."""

    every: Duration = Field("1ep", description="time between two evaluations in training; 0: at the end only")
    split: str = Field("val", description="split of data.shards that training evaluates on")
    limit: Positive | None = Field(
        None, description="images of an evaluation in training, or of imgcap evaluate if given there; null: all"
    )
    batch: Positive = Field(32, description="images that are decoded together")
    metrics: tuple[Metric, ...] = Field(("BLEU", "METEOR", "ROUGE-L", "CIDEr"), description="scores to compute")
    clip: ClipConfig = ClipConfig()

    @model_validator(mode="after")
    def _check_clip(self) -> "EvalConfig":
        asked = [name for name in self.metrics if name in BY_CLIP]
        if asked and self.clip.weights is None:
            raise ValueError(
                f"eval.metrics holds {asked[0]}, which needs the weights of a CLIP ({self.clip.model} of open_clip); "
                "name their file by eval.clip.weights"
            )
        return self
