"""From features to captions: searches and sampling over batches, and captions of one's own pictures."""

from imgcap.config.decoding import DecodeOptions
from imgcap.decode.beam import beam_search
from imgcap.decode.generate import generate
from imgcap.decode.hypotheses import Hypotheses
from imgcap.decode.inputs import Picture, as_picture, one_or_many
from imgcap.decode.pictures import Captioned, Scored, caption_pictures, find_pictures, open_picture

__all__ = [
    "Captioned",
    "DecodeOptions",
    "Hypotheses",
    "Picture",
    "Scored",
    "as_picture",
    "beam_search",
    "caption_pictures",
    "find_pictures",
    "generate",
    "one_or_many",
    "open_picture",
]
