"""Flickr30k (Young et al., 2014): 31,783 photos with five captions each.

Reads Kaggle's `results.csv` (pipes), `captions.csv` (image,caption_number,caption,id) and the original
`results_20130124.token`. There is no official split: lists or a Karpathy file give one, else a seed cuts by image.
"""

from pathlib import Path

from imgcap.shards.source import Source
from imgcap.shards.sources.flickr import read_flickr


def read(images: Path, captions: Path, splits: Path | None = None, seed: int = 0) -> Source:
    """Read Flickr30k. `splits` is a folder of train.txt, val.txt, test.txt or a `dataset_flickr30k.json`."""
    return read_flickr("flickr30k", images, captions, splits, seed)
