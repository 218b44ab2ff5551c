"""Train, score and use image-captioning models, on one processor or on many GPUs."""

from imgcap.captioning.loading import load

__all__ = ["load"]
__version__ = "0.1.0"
