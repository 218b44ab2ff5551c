"""Train, score and use image-captioning models, on one processor or on many GPUs."""

__version__ = "0.1.0"
