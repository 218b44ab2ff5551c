"""The sections `data` and `vocab`: which pictures and captions a model learns from, and the words it knows."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from imgcap.config.section import Count, LocalPath, Off, Place, Positive, Section


class DataConfig(Section):
    """Where pictures and captions come from, and what becomes of them before the model."""

    shards: Place = Field(
        "shards/demo", description="shard set that gives words, evaluation and training: folder or URL"
    )
    also: dict[Place, PositiveFloat] = Field(
        {}, description="other shard sets to train on too, each with the passes over it in an epoch"
    )
    mode: Literal["index", "stream"] = Field(
        "index", description="index trains on the shards in an exact order, stream on the tars of data.stream in none"
    )
    stream: Place | None = Field(
        None, description="pattern of the tars to train on with mode=stream, such as a{00..99}.tar"
    )
    stream_epoch: Positive = Field(100_000, description="images that count as an epoch of a stream")
    stream_buffer: Positive = Field(1000, description="samples of a stream that each loader process mixes")
    pipes: bool = Field(False, description="let data.stream name shell commands to read from, as pipe:COMMAND")
    image_size: Positive = Field(
        224, description="width and height, in pixels, that every picture is brought to; unset: those of the encoder"
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear", description="how pictures are brought to that size; unset: as those that the encoder learned from"
    )
    captions_per_image: Positive = Field(
        5, description="captions of an image that a step learns; of more, each pass draws anew"
    )
    max_tokens: Positive = Field(
        20, description="words of the longest caption, learned (longer ones are cut) or decoded"
    )
    workers: Count = Field(2, description="loader processes of each rank; 0 loads in the training process")
    augment: Annotated[Literal["off", "light", "strong", "safe"], Off] = Field(
        "light",
        description="training pictures: light crops and mirrors, strong changes colours too, safe keeps captions true",
    )
    language: str = Field("en", description="language of the captions, the one that the shards were built with")
    features: bool = Field(
        True, description="read the frozen encoder's features, not the pictures, where the shards hold them"
    )
    cache: LocalPath | None = Field(
        None, description="folder for remote shards; null: shards in $IMGCAP_CACHE or ~/.cache/imgcap"
    )
    cache_gb: PositiveFloat = Field(20.0, description="GB of remote shards that this machine keeps at most")
    block: Positive | None = Field(
        None, description="shards whose samples are mixed; null: all, or as many as the cache holds of a remote set"
    )

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
    """Which words of the train split the model knows."""

    size: Positive | None = Field(
        None, description="most entries of the vocabulary, special tokens among them; null: no bound"
    )
    min_count: Positive = Field(1, description="times that a word must occur in the train split to be kept")
    oov: Literal["unk", "characters"] = Field(
        "unk", description="a word outside the vocabulary becomes <unk>, or is spelled in characters"
    )
    adapt: Literal["keep", "extend", "replace"] = Field(
        "keep", description="vocabulary of init_from: keep it, extend it by the data's words, or replace it by them"
    )
