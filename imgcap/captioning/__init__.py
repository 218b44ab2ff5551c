"""Captions of whole folders and shard sets: on any number of ranks, gone on with after a kill, in one file."""
