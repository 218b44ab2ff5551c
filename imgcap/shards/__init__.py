"""Datasets as verified tar shards: sources, builder, manifest, index, reader."""
