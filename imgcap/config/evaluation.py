"""The section `eval`: how a model is scored on the way and at the end, and how captions are then decoded."""

from typing import Literal

from pydantic import Field

from imgcap.config.decoding import SearchConfig
from imgcap.config.section import Duration, Positive

Metric = Literal["BLEU", "METEOR", "ROUGE-L", "CIDEr", "SPICE"]


class EvalConfig(SearchConfig):
    """How captions are decoded and scored."""

    every: Duration = Field("1ep", description="time between two evaluations in training; 0: at the end only")
    split: str = Field("val", description="split of data.shards that training evaluates on")
    limit: Positive | None = Field(None, description="images of an evaluation in training; null: all of the split")
    batch: Positive = Field(32, description="images that are decoded together")
    metrics: tuple[Metric, ...] = Field(("BLEU", "METEOR", "ROUGE-L", "CIDEr"), description="scores to compute")
