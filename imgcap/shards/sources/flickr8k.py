"""Flickr8k (Hodosh et al., 2013): 8,000 photos with five captions each, standard lists of 6,000, 1,000 and 1,000.

Reads Kaggle's `captions.txt` and the original `Flickr8k.token.txt`; `dev` is called `val` here.
"""

from pathlib import Path

from imgcap.shards.source import Source
from imgcap.shards.sources.flickr import read_flickr


def read(images: Path, captions: Path, splits: Path | None = None, seed: int = 0) -> Source:
    """Read Flickr8k. Some of the lists may be missing: images in none of those that are there are skipped."""
    return read_flickr("flickr8k", images, captions, splits, seed)
