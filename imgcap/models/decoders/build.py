"""The decoder that the section `model.decoder` describes."""

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, LSTMConfig, TransformerConfig
from imgcap.models.decoders.attend_after import AttendAfterDecoder
from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.lstm import LSTMDecoder
from imgcap.models.decoders.transformer import TransformerDecoder


def build_decoder(config: DecoderConfig, vocabulary_size: int, encoder_width: int) -> Decoder:
    """Build the decoder that `model.decoder.type` and `.query` name, with fresh weights."""
    match config:
        case LSTMConfig():
            return LSTMDecoder(config, vocabulary_size, encoder_width)
        case AttentionLSTMConfig(query="after"):
            return AttendAfterDecoder(config, vocabulary_size, encoder_width)
        case AttentionLSTMConfig():
            return AttentionLSTMDecoder(config, vocabulary_size, encoder_width)
        case TransformerConfig():
            return TransformerDecoder(config, vocabulary_size, encoder_width)
    raise AssertionError(f"{type(config).__name__} has no decoder")
