"""Captions of pictures from Python, of files, and of whole folders and shard sets on any number of ranks."""
