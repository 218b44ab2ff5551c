"""Datasets as verified tar shards: builder, manifest, index, reader, verification. Datasets come from `sources`."""
