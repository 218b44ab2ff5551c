"""From features to captions: batched beam search, and captions of one's own pictures."""

from imgcap.decode.beam import Hypotheses, beam_search
from imgcap.decode.inputs import Picture, as_picture, one_or_many
from imgcap.decode.pictures import Captioned, caption_pictures, find_pictures, open_picture

__all__ = [
    "Captioned",
    "Hypotheses",
    "Picture",
    "as_picture",
    "beam_search",
    "caption_pictures",
    "find_pictures",
    "one_or_many",
    "open_picture",
]
