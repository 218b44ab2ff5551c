"""Operations of decoders and encoders, counted for the floors. Each multiplication and each addition is one."""

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, RecurrentConfig, TransformerConfig


def row_operations(config: DecoderConfig, vocabulary: int, cells: int, width: int) -> float:
    """Count the operations of one step of one caption, forward: the products, and attention's scores and contexts.

    Without a gate a decoder of many captions can do with fewer: it may multiply an image's cells in place of contexts.
    A Transformer's words look at one another too, which is not counted: at 20 words it is under 1 % of their step.
    """
    if isinstance(config, TransformerConfig):
        weights = config.width * (6 * config.width + 2 * config.feedforward)
        return 2.0 * (config.layers * (weights + 2 * cells * config.width) + config.width * vocabulary)
    assert isinstance(config, RecurrentConfig)
    embed, hidden = config.embed_dim, config.hidden_dim
    stack = 4 * hidden * (embed + hidden) + (config.layers - 1) * 4 * hidden * 2 * hidden
    if not isinstance(config, AttentionLSTMConfig):
        return 2.0 * (stack + hidden * vocabulary)
    width, before, deep = config.feature_dim or width, config.query == "before", config.output == "deep"
    attention = hidden * config.attention_dim + cells * (config.attention_dim + width)
    context = 4 * hidden * width * before + hidden * width * config.gate
    read = embed if deep else hidden
    mixed = (hidden + width) * read if deep or not before else 0
    return 2.0 * (stack + attention + context + mixed + read * vocabulary)


def image_operations(config: DecoderConfig, cells: int, width: int) -> tuple[float, float]:
    """Count what is done once an image, forward: on the features themselves, which take no gradient, and after it."""
    if isinstance(config, TransformerConfig):
        wide = config.width
        layers = config.layers * 2 * wide + config.image_layers * (4 * wide + 2 * config.feedforward + 2 * cells)
        return 2.0 * cells * width * wide, 2.0 * cells * wide * layers
    assert isinstance(config, RecurrentConfig)
    if not isinstance(config, AttentionLSTMConfig):
        return 2.0 * width * config.embed_dim, 0.0
    if config.feature_dim is None:
        return 2.0 * cells * width * config.attention_dim, 0.0
    return 2.0 * cells * width * config.feature_dim, 2.0 * cells * config.feature_dim * config.attention_dim


def decoding_operations(
    config: DecoderConfig, vocabulary: int, cells: int, width: int, images: int, rows: int
) -> float:
    """Count a forward pass over `rows` steps of captions in all, of so many images."""
    return rows * row_operations(config, vocabulary, cells, width) + images * sum(
        image_operations(config, cells, width)
    )


def training_operations(
    config: DecoderConfig, vocabulary: int, cells: int, width: int, images: int, rows: int
) -> float:
    """Count forward and backward over `rows` steps: the backward pass is twice the forward, less the features' own."""
    on_features, after = image_operations(config, cells, width)
    return 3 * (rows * row_operations(config, vocabulary, cells, width) + images * after) + 2 * images * on_features


def encoder_operations(name: str, image_size: int) -> float:
    """Count the forward pass of one of torchvision's classifiers over one image."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        torchvision.models.get_model(name, weights=None).eval()(torch.empty(1, 3, image_size, image_size))
    return float(counter.get_total_flops())
