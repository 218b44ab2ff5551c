"""From `model.decoder` to a decoder."""

from imgcap.config.schema import DecoderConfig
from imgcap.models.decoders.attend_after import AttendAfterDecoder
from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.lstm import LSTMDecoder

DECODERS: dict[tuple[str, str], type[Decoder]] = {
    ("attention_lstm", "before"): AttentionLSTMDecoder,
    ("attention_lstm", "after"): AttendAfterDecoder,
    ("lstm", "before"): LSTMDecoder,
}


def build_decoder(config: DecoderConfig, vocabulary_size: int, encoder_width: int) -> Decoder:
    """Build the decoder that `model.decoder.type` and `.query` name, with fresh weights."""
    return DECODERS[config.type, config.query](config, vocabulary_size, encoder_width)
