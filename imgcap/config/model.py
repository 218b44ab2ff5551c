"""The section `model`: an encoder, and a decoder of one of several types.

A further type of decoder is one more class here: its `type`, its own keys, and its name in `DECODERS` and `Decoder`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from imgcap.config.section import Count, Place, Positive, Section

_TYPE = "sort of decoder; each has keys of its own"
Source = Annotated[Place | None, BeforeValidator(lambda value: None if value == "none" else value)]


class EncoderConfig(Section):
    """The network that turns a picture into a grid of features."""

    name: str = Field(
        "resnet50",
        description="network of torchvision (resnet50, vit_b_16 ...) or timm (timm/NAME); imgcap encoders lists them",
    )
    weights: Source = Field(
        "DEFAULT",
        description="weights to begin with: DEFAULT (the library's best), a .pth or .safetensors file, or none",
    )
    train: str = Field(
        "none", description="what trains from the first step on: none, last_block, all, or a stage and all behind it"
    )
    output_stride: Literal[32, 16] = Field(
        32, description="pixels a grid cell is wide and high; 16 gives four times as many cells"
    )
    tokens: Literal["patches", "all"] = Field(
        "patches", description="of a ViT: its patches alone, or class and register tokens before them too"
    )
    input_size: Positive | None = Field(
        None, description="of a network of timm that takes one size: make it for pictures so wide; null: as trained"
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the deepest residual branch that training drops, the others' less; where there is any",
    )
    recompute: bool = Field(
        False, description="save memory: trainable stages compute their activations again in the backward pass"
    )


class DecoderConfig(Section):
    """The keys that the sections of all decoders have."""

    attends: ClassVar[bool]  # each word looks at the cells of the picture's grid
    undroppable: ClassVar[Mapping[str, Any]] = {}  # what a decoder of another type refuses; other keys it drops

    type: str = Field(description=_TYPE)
    layers: Positive = Field(1, description="layers, one above the other")
    dropout: Annotated[float, Field(ge=0, lt=1)]


class RecurrentConfig(DecoderConfig):
    """The keys that the sections of the LSTM decoders have."""

    layers: Positive = Field(1, description="LSTM layers, one above the other")
    embed_dim: Positive = Field(512, description="width of a word's embedding")
    hidden_dim: Positive = Field(512, description="width of the LSTM's state")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share dropped between layers, before the logits, and of features that are embedded"
    )


class LSTMConfig(RecurrentConfig):
    """Show and Tell (Vinyals et al. 2015): the picture is the first word of an LSTM."""

    attends = False

    type: Literal["lstm"] = Field("lstm", description=_TYPE)
    image_layers: Count = Field(0, description="ReLU layers that the picture passes before it is projected to a word")


class AttentionLSTMConfig(RecurrentConfig):
    """Show, Attend and Tell (Xu et al. 2015): an LSTM that looks at the cells of the picture at each word."""

    attends = True
    undroppable: ClassVar[Mapping[str, Any]] = {"attention": "dot", "query": "after"}

    type: Literal["attention_lstm"] = Field("attention_lstm", description=_TYPE)
    attention_dim: Positive = Field(512, description="width in which query and cells are compared")
    query: Literal["before", "after"] = Field(
        "before", description="attention feeds the recurrence, or follows it: all steps of training then attend at once"
    )
    attention: Literal["additive", "dot"] = Field(
        "additive", description="how query and cells are compared; dot (scaled) is for query=after"
    )
    init_state: Literal["zeros", "mean"] = Field(
        "mean", description="the LSTM's first state: zeros, or computed from the mean of the cells"
    )
    gate: bool = Field(True, description="the state scales each entry of the attended features (sigmoid)")
    output: Literal["linear", "deep"] = Field(
        "linear", description="logits from the state alone, or (deep) from word and attended features too"
    )
    feature_dim: Positive | None = Field(
        None, description="width to which the cells are first embedded (linear, ReLU); null: as the encoder gives them"
    )

    @model_validator(mode="after")
    def _check_attention(self) -> "AttentionLSTMConfig":
        if self.attention == "dot" and self.query == "before":
            raise ValueError("model.decoder.attention=dot is for query=after; with query=before use additive")
        return self


class TransformerConfig(DecoderConfig):
    """A pre-norm Transformer (Vaswani et al. 2017; Xiong et al. 2020) whose words look at the cells of the picture."""

    attends = True

    type: Literal["transformer"] = Field("transformer", description=_TYPE)
    layers: Positive = Field(3, description="layers of words: self-attention, attention over the cells, feed-forward")
    width: Positive = Field(512, description="width of words and cells within the decoder")
    heads: Positive = Field(8, description="heads of every attention; they divide the width")
    feedforward: Positive = Field(2048, description="width of the feed-forward layers within")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share dropped after the embedding and after each sub-layer"
    )
    tie_embeddings: bool = Field(True, description="the output layer's weight is the words' embedding")
    max_length: Positive = Field(64, description="tokens of the longest caption for which there are learned positions")
    image_layers: Count = Field(0, description="layers of self-attention over the cells, before the words look at them")
    grid_positions: bool = Field(
        True, description="tell the decoder where each cell lies (sines); a ViT's tokens know it already"
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "TransformerConfig":
        if self.width % self.heads:
            raise ValueError(f"model.decoder.heads={self.heads} must divide model.decoder.width={self.width}")
        return self


DECODERS: dict[str, type[DecoderConfig]] = {
    "lstm": LSTMConfig,
    "attention_lstm": AttentionLSTMConfig,
    "transformer": TransformerConfig,
}
DEFAULT_DECODER = "attention_lstm"


def _of_its_type(given: Any) -> Any:
    """Read `model.decoder` as the section that its `type` names.

    Overrides change the type alone, and files of 0.1.0 hold the keys of both: a key that only another type has is
    checked as there, and dropped.
    """
    if not isinstance(given, Mapping):
        return given
    name = given.get("type", DEFAULT_DECODER)
    if name not in list(DECODERS):
        expected = " or ".join(map(repr, DECODERS))
        raise ValidationError.from_exception_data(
            "decoder", [{"type": "literal_error", "loc": ("type",), "input": name, "ctx": {"expected": expected}}]
        )
    section, own = DECODERS[name], dict(given)
    for kind, other in DECODERS.items():
        theirs = {key: own.pop(key) for key in other.model_fields if key in own and key not in section.model_fields}
        for key, value in other.undroppable.items():
            if theirs.get(key) == value:
                raise ValueError(f"model.decoder.{key}={value} is for type={kind}; leave it out with type={name}")
        other.model_validate(theirs)
    return section.model_validate(own)


Decoder = Annotated[
    LSTMConfig | AttentionLSTMConfig | TransformerConfig, Field(discriminator="type"), BeforeValidator(_of_its_type)
]


class ModelConfig(Section):
    """The model: its encoder and its decoder."""

    encoder: EncoderConfig = EncoderConfig()
    decoder: Decoder = AttentionLSTMConfig()
