"""Caption decoders: `init`, `step` and a teacher-forced `unroll` that share one step."""

from imgcap.models.decoders.attention_lstm import AttentionLSTMDecoder
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.lstm import LSTMDecoder
from imgcap.models.decoders.state import DecoderState

__all__ = ["AttentionLSTMDecoder", "Decoder", "DecoderState", "LSTMDecoder", "build_decoder"]
