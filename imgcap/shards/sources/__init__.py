"""Readers of raw datasets: each module has one function `read(...) -> Source`; the registry finds it by name."""

from imgcap.shards.sources.registry import SOURCE_NAMES, SourceOptions, read_source

__all__ = ["SOURCE_NAMES", "SourceOptions", "read_source"]
