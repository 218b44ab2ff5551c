"""From features to captions: batched beam search, and captions of one's own pictures."""

from imgcap.decode.beam import Hypotheses, beam_search
from imgcap.decode.pictures import Captioned, caption_pictures, find_pictures, open_picture

__all__ = ["Captioned", "Hypotheses", "beam_search", "caption_pictures", "find_pictures", "open_picture"]
