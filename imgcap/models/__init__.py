"""Image-captioning models: an image encoder, a caption decoder, and the two as one."""

from imgcap.models.captioner import Captioner, build_captioner
from imgcap.models.decoders import Decoder, DecoderState, build_decoder
from imgcap.models.encoder import Encoder

__all__ = ["Captioner", "Decoder", "DecoderState", "Encoder", "build_captioner", "build_decoder"]
