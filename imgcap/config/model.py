"""The section `model`: encoder and decoder."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from imgcap.config.section import Count, Positive, Section

Source = Annotated[str | None, BeforeValidator(lambda value: None if value == "none" else value)]


class EncoderConfig(Section):
    """The network that turns a picture into a grid of features."""

    name: str = Field("resnet50", description="torchvision's name of a ResNet, ResNeXt or Wide ResNet")
    weights: Source = Field(
        "DEFAULT",
        description="weights to begin with: DEFAULT (torchvision's best), a .pth or .safetensors file, or none",
    )
    train: Literal["none", "last_block", "all"] = Field(
        "none", description="what of the encoder trains from the first step on; the rest is frozen"
    )
    output_stride: Literal[32, 16] = Field(
        32, description="pixels a grid cell is wide and high; 16 gives four times as many cells"
    )
    recompute: bool = Field(
        False, description="save memory: trainable stages compute their activations again in the backward pass"
    )


class DecoderConfig(Section):
    """The network that says the words."""

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
    image_layers: Count = 0  # lstm: ReLU layers ahead of the image's projection

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
    """Encoder and decoder."""

    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
