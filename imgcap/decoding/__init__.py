"""Decoding, from features to captions: searches and sampling over batches of images."""
