"""The section `eval`: how a model is scored on the way and at the end, and how captions are then decoded."""

from typing import Annotated, Literal

from pydantic import Field

from imgcap.config.section import Count, Duration, Positive, Section

Metric = Literal["BLEU", "METEOR", "ROUGE-L", "CIDEr", "SPICE"]


class EvalConfig(Section):
    """How captions are decoded and scored."""

    every: Duration = Field("1ep", description="time between two evaluations in training; 0: at the end only")
    split: str = Field("val", description="split of data.shards that training evaluates on")
    limit: Positive | None = Field(None, description="images of an evaluation in training; null: all of the split")
    batch: Positive = Field(32, description="images that are decoded together")
    beam: Positive = Field(5, description="beams of the search")
    length_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="a caption's score is log P / length ** this; more prefers longer captions"
    )
    min_length: Count = Field(0, description="least number of words of a caption")
    no_repeat_ngram: Count = Field(
        0, description="never the same so many words in a row twice in a caption; 0: allowed"
    )
    metrics: tuple[Metric, ...] = Field(("BLEU", "METEOR", "ROUGE-L", "CIDEr"), description="scores to compute")
