"""From `model.decoder` to a decoder."""

from imgcap.config.schema import DecoderConfig
from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.lstm import LSTMDecoder

DECODERS: dict[str, type[Decoder]] = {"lstm": LSTMDecoder, "attention_lstm": AttentionLSTMDecoder}


def build_decoder(config: DecoderConfig, vocabulary_size: int, encoder_width: int) -> Decoder:
    """Build the decoder that `model.decoder.type` names, with fresh weights."""
    return DECODERS[config.type](config, vocabulary_size, encoder_width)
